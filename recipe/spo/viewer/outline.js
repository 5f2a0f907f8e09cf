// The tree as lines that fold. Every node has its line from the start; folding only hides lines.

const outline = { order: [], lines: [], folded: new Set() };

function drawOutline(question) {
  outline.order = inOrder(question);
  outline.lines = [];
  // Continuations say what a state is worth; there are many, and the responses are read first.
  const valued = question.nodes.filter((node) => node.parent !== null && node.held.some((held) => held.kind === "continuation"));
  outline.folded = new Set(valued.map((node) => node.index));
  const fragment = document.createDocumentFragment();
  for (const node of outline.order) {
    const line = lineOf(node, question);
    outline.lines[node.index] = line;
    fragment.append(line);
  }
  byId("outline").replaceChildren(fragment);
  hideFolded();
}

function lineOf(node, question) {
  const line = make("div", node.kind);
  line.id = `node-${node.index}`;
  line.setAttribute("role", "treeitem");
  line.setAttribute("aria-level", (node.level ?? 0) + 1);
  line.setAttribute("aria-selected", "false");
  line.dataset.node = node.index;
  line.style.setProperty("--level", node.level ?? 0);
  if (question.method === "chain" && node.parent === 0 && node.kind !== "continuation") line.classList.add("begins");
  line.append(make("span", "twist"));
  if (node.parent === null) {
    line.append(valueChip(node, question), make("span", "snippet", snippet(node)));
    return line;
  }
  const advantage = make("span", "chip advantage", signed(node.advantage));
  if (node.advantage === null) advantage.classList.add("none");
  paintAdvantage(advantage, node.advantage, question);
  line.append(advantage, valueChip(node, question), make("span", "snippet", snippet(node)), make("span", "end", ending(node)));
  return line;
}

function valueChip(node, question) {
  const chip = make("span", "chip value", plain(node.value));
  if (node.value === null) chip.classList.add("none");
  else paintValue(chip, node.value, question);
  return chip;
}

const snippet = (node) => node.text.slice(0, 200).replace(/\s+/g, " ").trim() || "(white space)";

function hideFolded() {
  const hidden = new Set();
  for (const node of outline.order) {
    if (node.parent !== null && (hidden.has(node.holder) || outline.folded.has(node.holder))) hidden.add(node.index);
    const line = outline.lines[node.index], folds = node.held.length > 0;
    line.hidden = hidden.has(node.index);
    line.firstChild.textContent = folds ? (outline.folded.has(node.index) ? "▸" : "▾") : "";
    if (folds) line.setAttribute("aria-expanded", !outline.folded.has(node.index));
  }
}

const visibleNodes = () => outline.order.filter((node) => !outline.lines[node.index].hidden);

function fold(node, folded) {
  if (folded) outline.folded.add(node.index);
  else outline.folded.delete(node.index);
  hideFolded();
}

function foldAll(folded) {
  outline.folded = new Set(folded ? outline.order.filter((node) => node.parent !== null && node.held.length).map((node) => node.index) : []);
  hideFolded();
}

/** Unfold what hides a node, and mark its line. */
function markOutline(question, selected) {
  let unfolded = false;
  for (let node = selected; node.parent !== null; node = question.nodes[node.holder]) {
    unfolded = outline.folded.delete(node.holder) || unfolded;
  }
  if (unfolded) hideFolded();
  for (const line of byId("outline").querySelectorAll('[aria-selected="true"]')) line.setAttribute("aria-selected", "false");
  const line = outline.lines[selected.index];
  line.setAttribute("aria-selected", "true");
  byId("outline").setAttribute("aria-activedescendant", line.id);
  line.scrollIntoView({ block: "nearest" });
}
