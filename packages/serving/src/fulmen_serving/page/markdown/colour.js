/** Code with its syntax in colours: nodes made of highlight.js's tree, never its HTML. */

import { h } from '../element.js';
import hljs from '../vendor/highlight.js/highlight.mjs';

const LONGEST = 50_000; // characters beyond which colours cost more than they give

/** Return nodes with the text of `code`, coloured if the language is known. */
export function coloured(code, language) {
  if (!hljs.getLanguage(language) || code.length > LONGEST) return [document.createTextNode(code)];
  const result = hljs.highlight(code, { language, ignoreIllegals: true });
  return result._emitter.rootNode.children.map(node);
}

function node(part) {
  if (typeof part === 'string') return document.createTextNode(part);
  // "title.function" is coloured as a title; a scope that embeds a language has no colour of its own
  const [scope, kind] = (part.scope ?? '').split('.');
  return h('span', { class: scope.startsWith('language:') ? null : `hl-${kind === 'function' ? kind : scope}` }, part.children.map(node));
}
