/**
 * Markdown as nodes. markdown-it (CommonMark, tables, strikethrough) parses it into tokens; each token becomes an element
 * from the list below with text in text nodes. HTML in the Markdown is text, and a picture is a link to it: showing an
 * answer must not fetch anything.
 */

import { h } from '../element.js';
import markdownIt from '../vendor/markdown-it/markdown-it.mjs';
import { codeBlock } from './code_block.js';

const parser = markdownIt({ html: false, linkify: true, breaks: false });
const ELEMENTS = new Set(
  'p h1 h2 h3 h4 h5 h6 ul ol li blockquote table thead tbody tr th td em strong s hr br'.split(' '),
);
const sources = new WeakMap(); // an element to the Markdown that it shows
const SAFE_LINK = /^(https?:|mailto:)/i;

/**
 * Show `text` in `place`. Blocks that are there already stay: a growing answer is changed at its end only, so that what
 * is selected or unfolded further up remains so.
 */
export function showMarkdown(place, text) {
  const blocks = blocksOf(parser.parse(text, {}), text);
  const shown = [...place.children];
  blocks.forEach(({ source, tokens }, index) => {
    if (sources.get(shown[index]) === source) return;
    const element = nodesOf(tokens)[0];
    sources.set(element, source);
    if (shown[index]) shown[index].replaceWith(element);
    else place.append(element);
  });
  for (const left of shown.slice(blocks.length)) left.remove();
}

/** Cut tokens into top-level blocks, each with the lines that it was made of. */
function blocksOf(tokens, text) {
  const lines = text.split('\n');
  const blocks = [];
  let begin = 0;
  let depth = 0;
  tokens.forEach((token, index) => {
    depth += token.nesting;
    if (depth > 0) return;
    const first = tokens[begin];
    blocks.push({ source: `${first.type}\n${lines.slice(...first.map).join('\n')}`, tokens: tokens.slice(begin, index + 1) });
    begin = index + 1;
  });
  return blocks;
}

function nodesOf(tokens) {
  const stack = [{ nodes: [] }];
  const add = (child) => stack.at(-1).nodes.push(child);
  for (const token of tokens) {
    if (token.nesting === 1) {
      stack.push({ token, nodes: [] });
    } else if (token.nesting === -1) {
      const { token: open, nodes } = stack.pop();
      for (const made of closed(open, nodes)) add(made);
    } else {
      for (const made of single(token)) add(made);
    }
  }
  return stack[0].nodes;
}

/** The element of a token that encloses others, or those alone where it may not be one. */
function closed(token, children) {
  if (token.hidden) return children;
  if (token.type === 'link_open') return [link(token.attrGet('href'), children)];
  if (!ELEMENTS.has(token.tag)) return children;
  // the page and the message have headings of their own: an answer's are below them, and look as they were meant
  const level = /^h([1-6])$/.exec(token.tag)?.[1];
  const element = level ? h(`h${Math.min(6, Number(level) + 2)}`, { class: token.tag }, children) : h(token.tag, {}, children);
  if (token.tag === 'ol' && token.attrGet('start')) element.setAttribute('start', token.attrGet('start'));
  const alignment = /text-align:(left|right|center)/.exec(token.attrGet('style') ?? '');
  if (alignment) element.classList.add(`align-${alignment[1]}`);
  return token.tag === 'table' ? [h('div', { class: 'table-frame', tabindex: 0, role: 'group' }, element)] : [element];
}

function single(token) {
  switch (token.type) {
    case 'inline': return nodesOf(token.children);
    case 'softbreak': return ['\n'];
    case 'code_inline': return [h('code', {}, token.content)];
    case 'fence': return [codeBlock(token.content, token.info.trim().split(/\s+/, 1)[0])];
    case 'code_block': return [codeBlock(token.content, '')];
    case 'image': return [link(token.attrGet('src'), [token.content || token.attrGet('src')])];
    default: return ELEMENTS.has(token.tag) ? [h(token.tag)] : [token.content];
  }
}

function link(target, children) {
  if (!SAFE_LINK.test(target ?? '')) return h('span', {}, children);
  return h('a', { href: target, target: '_blank', rel: 'noopener noreferrer' }, children);
}
