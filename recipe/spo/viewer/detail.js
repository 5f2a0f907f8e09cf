// What a segment is: its numbers, its siblings, and the response up to its end, token by token.

function drawDetail(question, node, wanted) {
  const path = pathOf(question, node);
  const content = [make("h2", "", titleOf(node)), numbersOf(question, node)];
  if (node.parent !== null) content.push(...siblingsOf(question, node));
  if (node.same !== null) {
    content.push(make("p", "note", `The same state as after ${question.nodes[node.same].label}; its continuations are there.`));
  }
  const text = make("div", "text path");
  for (const part of path) {
    if (part.depth > 0) text.append(cutBefore(question, part));
    text.append(tokensOf(question, part, part === node, wanted));
  }
  content.push(make("h2", "", node.parent === null ? "Prompt" : "Prompt and response up to here"), text);
  byId("detail").replaceChildren(...content);
  byId("detail").querySelector(".here")?.scrollIntoView({ block: "nearest" });
}

function titleOf(node) {
  if (node.parent === null) return "The prompt";
  const kinds = { segment: "Segment", uncut: "Tokens before the first cut", continuation: "Continuation" };
  return `${kinds[node.kind]} ${node.label}`;
}

function numbersOf(question, node) {
  const list = make("dl", "numbers");
  const add = (name, value, className = "") => {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", className, value));
    list.append(pair);
  };
  if (node.parent !== null) {
    add("advantage", node.advantage === null ? (node.kind === "segment" ? "made by the trainer" : "none") : signed(node.advantage), "advantage");
    add("value before", plain(question.nodes[node.parent].value));
    add("value after", plain(node.value), "value");
  } else {
    add("value", plain(node.value), "value");
  }
  add("tokens", String(node.texts.length));
  if (node.kind === "segment" || node.kind === "uncut") {
    const trained = node.texts.filter((_, position) => stateOf(node, position) === "trained").length;
    add("in the loss", node.mask === null ? "masked by the trainer" : String(trained));
    add("training row", node.row ? "yes" : "no");
  }
  if (node.children.length && question.method !== "chain") add("responses below", String(node.leaves));
  if (node.reward !== null) add("end", ending(node), "ending");
  return list;
}

function siblingsOf(question, node) {
  const all = question.nodes[node.parent].children.filter((other) => other.kind === node.kind);
  if (all.length < 2) return [];
  const row = make("div", "siblings");
  for (const other of all) {
    const button = make("button");
    button.type = "button";
    button.dataset.node = other.index;
    if (other === node) button.setAttribute("aria-current", "true");
    if (other.advantage !== null) {
      const chip = make("span", "chip", signed(other.advantage));
      paintAdvantage(chip, other.advantage, question);
      button.append(chip);
    }
    button.append(valueChip(other, question));
    row.append(button);
  }
  return [make("p", "note", `${all.length} samples from this state: advantage, value`), row];
}

function cutBefore(question, part) {
  const before = question.nodes[part.parent];
  const cut = make("span", "cut", "‖");
  cut.dataset.tip = before.value === null ? "cut; the state here has no value" : `cut: V = ${plain(before.value)}`;
  return cut;
}

function tokensOf(question, part, here, wanted) {
  const span = make("span", `part ${part.kind}${here ? " here" : ""}`);
  span.dataset.node = part.index;
  paintAdvantage(span, part.advantage, question);
  const found = wanted ? positionsOf(part, wanted) : new Set();
  part.texts.forEach((text, position) => {
    const state = stateOf(part, position);
    const token = make("span", `token ${state}${found.has(position) ? " found" : ""}`);
    token.dataset.position = position;
    if (part.mask !== null) token.dataset.mask = part.mask[position];
    // A token of nothing but a line end, or of no text, must have something to point at.
    if (text === "" || /^\n+$/.test(text)) token.append(make("span", "sign", text === "" ? "·" : "↵"));
    token.append(text);
    span.append(token);
  });
  return span;
}

/** Positions of the tokens in which a text is found. */
function positionsOf(part, wanted) {
  const text = part.text.toLowerCase(), positions = new Set();
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
    let begin = 0;
    part.texts.forEach((token, position) => {
      if (begin < at + wanted.length && begin + token.length > at) positions.add(position);
      begin += token.length;
    });
  }
  return positions;
}

/** What the pointer is on: a token, a cut, a cell of the overview. */
function tipOf(question, target) {
  if (target.dataset.tip) return target.dataset.tip;
  if (target.classList.contains("cell")) {
    const node = question.nodes[target.dataset.node];
    return `${titleOf(node)}\nA ${signed(node.advantage)}   V ${plain(node.value)}   ${ending(node)}\n${snippet(node)}`;
  }
  const node = question.nodes[target.closest(".part").dataset.node], position = Number(target.dataset.position);
  const lines = [`${JSON.stringify(node.texts[position])}   id ${node.ids[position]}`];
  if (node.p.length) lines.push(`p = ${node.p[position].toPrecision(4)}`);
  const words = {
    trained: "in the loss", idle: "improbable, but no training row",
    masked: `masked: p ≥ ${question.threshold ?? 1}`, "": node.mask === null && node.kind === "segment" ? "the trainer masks" : "",
  };
  const state = words[stateOf(node, position)];
  if (state) lines.push(state);
  if (node.advantage !== null) lines.push(`advantage ${signed(node.advantage)}`);
  return lines.join("\n");
}
