// The data of the page, and how numbers become text and colour. All text that a model wrote reaches the
// document through `make` below, as text.
"use strict";

const byId = (id) => document.getElementById(id);
const embedded = (id) => JSON.parse(byId(id).textContent);

/** An element with a class and a text; never markup. */
function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/**
 * A question with what follows from its nodes: children, depths, leaves under each, scales. `held` are the nodes
 * that a fold hides: of a tree the children; of a chain, whose segments follow one another, the continuations.
 */
function prepare(question) {
  const nodes = question.nodes;
  nodes.forEach((node, index) => {
    node.index = index;
    node.children = [];
    node.held = [];
    node.depth = node.parent === null ? 0 : nodes[node.parent].depth + 1;
    if (node.parent !== null) nodes[node.parent].children.push(node);
    node.text = node.texts.join("");
  });
  for (const node of nodes) {
    if (node.parent === null) continue;
    const follows = question.method === "chain" && node.kind === "segment";
    node.holder = follows ? 0 : node.parent;
    node.level = node.holder === 0 ? 1 : (nodes[node.holder].level ?? 0) + 1;
    nodes[node.holder].held.push(node);
    node.children.sort((a, b) => (b.kind === "continuation") - (a.kind === "continuation"));
  }
  for (let index = nodes.length - 1; index >= 0; index--) {
    const node = nodes[index];
    node.leaves = node.children.length ? node.children.reduce((sum, child) => sum + child.leaves, 0) : 1;
  }
  const values = nodes.map((node) => node.value).filter((value) => value !== null);
  question.lowest = Math.min(0, ...values);
  question.highest = Math.max(question.lowest + 1e-9, ...values);
  question.largest = Math.max(1e-9, ...nodes.map((node) => Math.abs(node.advantage ?? 0)));
  return question;
}

/** A node's path from the prompt, both ends included. */
function pathOf(question, node) {
  const path = [node];
  while (path[0].parent !== null) path.unshift(question.nodes[path[0].parent]);
  return path;
}

/** Depth first, children in the order in which they were sampled. */
function inOrder(question) {
  const order = [], stack = [question.nodes[0]];
  while (stack.length) {
    const node = stack.pop();
    order.push(node);
    stack.push(...[...node.children].reverse());
  }
  return order;
}

function signed(number) {
  if (number === null) return "–";
  return number === 0 ? "0" : (number > 0 ? "+" : "−") + Math.abs(number).toFixed(3);
}

const plain = (number) => (number === null ? "–" : Number(number).toFixed(3).replace(/\.?0+$/, ""));

/** Give an element the colour of an advantage: hue by sign, strength by size. */
function paintAdvantage(element, advantage, question) {
  element.classList.remove("pos", "neg", "val");
  if (advantage) element.classList.add(advantage > 0 ? "pos" : "neg");
  element.style.setProperty("--strength", advantage ? 0.2 + 0.8 * Math.abs(advantage) / question.largest : 0);
}

function paintValue(element, value, question) {
  element.classList.remove("pos", "neg");
  element.classList.add("val");
  const share = value === null ? 0 : (value - question.lowest) / (question.highest - question.lowest);
  element.style.setProperty("--strength", share);
}

/** How a node's response ends: verdict and reward; "" where it goes on. */
function ending(node) {
  if (node.reward === null) return "";
  const verdict = node.verdict || (node.finished ? "finished" : "unfinished");
  return `${verdict} ${plain(node.reward)}`;
}

/** trained: in the loss; idle: could be, but there is no row; masked: too probable; "": not known, or never trained. */
function stateOf(node, position) {
  if (node.mask === null) return "";
  if (!node.mask[position]) return "masked";
  return node.row ? "trained" : "idle";
}
