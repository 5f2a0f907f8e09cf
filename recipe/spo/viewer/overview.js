// The whole tree at a glance: a level is a row, a segment is as wide as it has responses below it.

const overview = { cells: [], by: "advantage" };

function drawOverview(question) {
  const depth = Math.max(...question.nodes.map((node) => node.depth));
  const height = Math.max(4, Math.min(22, Math.floor(150 / (depth + 1))));
  const total = question.nodes[0].leaves, begins = [0];
  const fragment = document.createDocumentFragment();
  overview.cells = [];
  for (const node of inOrder(question)) {
    let next = begins[node.index];
    for (const child of node.children) {
      begins[child.index] = next;
      next += child.leaves;
    }
    const cell = make("div", `cell ${node.kind}`);
    cell.dataset.node = node.index;
    cell.style.left = `${100 * begins[node.index] / total}%`;
    cell.style.width = `${100 * node.leaves / total}%`;
    cell.style.top = `${node.depth * height}px`;
    cell.style.height = `${height}px`;
    overview.cells[node.index] = cell;
    fragment.append(cell);
  }
  byId("overview").replaceChildren(fragment);
  byId("overview").style.height = `${(depth + 1) * height}px`;
  paintOverview(question);
}

function paintOverview(question) {
  for (const node of question.nodes) {
    const cell = overview.cells[node.index];
    if (overview.by === "value") paintValue(cell, node.value, question);
    else paintAdvantage(cell, node.advantage, question);
  }
  byId("by-value").setAttribute("aria-checked", overview.by === "value");
  byId("by-advantage").setAttribute("aria-checked", overview.by === "advantage");
}

function markOverview(question, selected) {
  for (const cell of byId("overview").querySelectorAll(".on-path, .selected")) {
    cell.classList.remove("on-path", "selected");
  }
  for (const node of pathOf(question, selected)) overview.cells[node.index].classList.add("on-path");
  overview.cells[selected.index].classList.add("selected");
}
