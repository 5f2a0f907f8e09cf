// What the user does: choosing a question and a node, keys, pointer, theme.

const summaries = embedded("questions");
const loaded = new Map();
const THEMES = ["system", "dark", "light"];
let question = null, selected = null, current = -1;

function show(place) {
  if (place < 0 || place >= summaries.length) return;
  if (!loaded.has(place)) loaded.set(place, prepare(embedded(`question-${place}`)));
  current = place;
  question = loaded.get(place);
  byId("title").textContent = `SPO-${question.method}, step ${question.step}, question ${question.index}`;
  byId("questions-list").querySelectorAll("button").forEach((button, index) => {
    button.setAttribute("aria-current", index === place);
    if (index === place) button.scrollIntoView({ block: "nearest" });
  });
  byId("facts").replaceChildren(...factsOf(question));
  drawOverview(question);
  drawOutline(question);
  find(question, byId("search").value);
  select(question.nodes[0]);
}

function factsOf(question) {
  const count = (kind) => question.nodes.filter((node) => node.kind === kind).length;
  const parts = [["segments", count("segment")]];
  if (count("continuation")) parts.push(["continuations", count("continuation")]);
  parts.push(["rows", question.nodes.filter((node) => node.row).length ? rowsOf(question) : 0]);
  parts.push(["mask", question.threshold === null ? "off" : `p < ${question.threshold}`]);
  if (question.truth !== null) parts.push(["answer", question.truth]);
  return parts.flatMap(([name, value]) => [`${name} `, make("b", "", String(value)), "   "]);
}

/** A chain's row is a response, all of its segments. */
function rowsOf(question) {
  const labels = question.nodes.filter((node) => node.row).map((node) => (question.method === "chain" ? node.label.split(".")[0] : node.label));
  return new Set(labels).size;
}

function select(node) {
  selected = node;
  markOverview(question, node);
  markOutline(question, node);
  drawDetail(question, node, search.wanted);
}

function move(key, shift) {
  const lines = visibleNodes(), place = lines.indexOf(selected);
  const siblings = selected.parent === null ? [selected] : question.nodes[selected.parent].children;
  const sibling = (step) => siblings[siblings.indexOf(selected) + step] ?? selected;
  const holds = selected.held.length > 0, unfolded = holds && !outline.folded.has(selected.index);
  const moves = {
    ArrowDown: () => select(shift ? sibling(1) : lines[place + 1] ?? selected),
    ArrowUp: () => select(shift ? sibling(-1) : lines[place - 1] ?? selected),
    ArrowRight: () => (holds && !unfolded ? fold(selected, false) : select(selected.held[0] ?? selected.children[0] ?? selected)),
    ArrowLeft: () => {
      if (selected.parent === null) return;
      if (unfolded) fold(selected, true);
      else select(question.nodes[selected.parent]);
    },
    Home: () => select(lines[0]),
    End: () => select(lines.at(-1)),
  };
  if (!moves[key]) return false;
  moves[key]();
  return true;
}

function extreme(sign) {
  const credited = question.nodes.filter((node) => node.advantage !== null);
  if (credited.length) select(credited.reduce((best, node) => (sign * node.advantage > sign * best.advantage ? node : best)));
}

function toMatch(forward) {
  const match = nextMatch(selected, forward);
  if (match) select(match);
}

function foldEverything() {
  foldAll(true);
  let node = selected;
  while (outline.lines[node.index].hidden) node = question.nodes[node.holder];
  select(node);
}

function colourBy(what) {
  overview.by = what;
  paintOverview(question);
}

function turnTheme() {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  byId("theme").textContent = `theme: ${next}`;
}

const COMMANDS = {
  e: () => foldAll(false),
  c: foldEverything,
  b: () => extreme(1),
  w: () => extreme(-1),
  n: () => toMatch(true),
  N: () => toMatch(false),
  "]": () => show(current + 1),
  "[": () => show(current - 1),
  v: () => colourBy(overview.by === "value" ? "advantage" : "value"),
  t: turnTheme,
  "/": () => byId("search").focus(),
  "?": () => byId("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target === byId("search")) {
    if (event.key === "Enter") toMatch(!event.shiftKey);
    else if (event.key === "Escape") byId("outline").focus();
    else return;
  } else if (COMMANDS[event.key]) {
    COMMANDS[event.key]();
  } else if (event.target.closest("nav, header, .siblings") || !move(event.key, event.shiftKey)) {
    return;
  }
  event.preventDefault();
});

byId("search").addEventListener("input", () => find(question, byId("search").value));
byId("by-value").addEventListener("click", () => colourBy("value"));
byId("by-advantage").addEventListener("click", () => colourBy("advantage"));
byId("unfold").addEventListener("click", COMMANDS.e);
byId("fold").addEventListener("click", COMMANDS.c);
byId("theme").addEventListener("click", turnTheme);
byId("help").addEventListener("click", COMMANDS["?"]);

byId("view").addEventListener("click", (event) => {
  const target = event.target.closest("[data-node]");
  if (!target) return;
  const node = question.nodes[target.dataset.node];
  if (event.target.classList.contains("twist") && node.held.length) fold(node, !outline.folded.has(node.index));
  else if (node !== selected) select(node);
});

document.addEventListener("pointerover", (event) => {
  const target = event.target.closest?.(".token[data-position], .cut[data-tip], .cell");
  byId("tip").hidden = !target;
  if (!target) return;
  byId("tip").textContent = tipOf(question, target);
  const box = target.getBoundingClientRect(), tip = byId("tip").getBoundingClientRect();
  const below = box.bottom + 6 + tip.height < innerHeight;
  byId("tip").style.left = `${Math.max(4, Math.min(event.clientX, innerWidth - tip.width - 8))}px`;
  byId("tip").style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - tip.height - 6)}px`;
});

byId("questions-list").hidden = summaries.length < 2;
summaries.forEach((entry, place) => {
  const button = make("button");
  button.type = "button";
  const about = `step ${entry.step} · ${entry.index} · V ${plain(entry.value)} · ${entry.nodes} nodes`;
  button.append(make("span", "about", about), make("span", "text", entry.text));
  button.addEventListener("click", () => show(place));
  byId("questions-list").append(button);
});
show(0);
byId("outline").focus();
document.documentElement.dataset.shown = Math.round(performance.now());
