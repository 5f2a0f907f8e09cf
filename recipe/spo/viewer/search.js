// Search in the text of every segment, and in verdicts.

const search = { wanted: "", matches: [], place: -1 };

function find(question, wanted) {
  search.wanted = wanted.toLowerCase();
  search.place = -1;
  search.matches = search.wanted
    ? outline.order.filter((node) => node.text.toLowerCase().includes(search.wanted) || node.verdict.toLowerCase() === search.wanted)
    : [];
  for (const node of question.nodes) outline.lines[node.index].classList.remove("match");
  for (const node of search.matches) outline.lines[node.index].classList.add("match");
  showMatches();
}

/** The next match after a node, or the one before it; it begins again at the end. */
function nextMatch(node, forward) {
  if (!search.matches.length) return null;
  const places = new Map(outline.order.map((other, place) => [other.index, place]));
  const from = places.get(node.index);
  const after = search.matches.filter((match) => (forward ? places.get(match.index) > from : places.get(match.index) < from));
  const match = forward ? after[0] ?? search.matches[0] : after.at(-1) ?? search.matches.at(-1);
  search.place = search.matches.indexOf(match);
  showMatches();
  return match;
}

function showMatches() {
  const count = search.matches.length;
  byId("matches").textContent = !search.wanted ? "" : search.place < 0 ? `${count} found` : `${search.place + 1} of ${count}`;
}
