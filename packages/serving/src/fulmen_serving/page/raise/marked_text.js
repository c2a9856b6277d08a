/** A text with what was found in it marked. Offsets count code points, as the guard counts them. */

import { h } from '../element.js';

/**
 * Return the text's pieces: plain ones, and a mark for each stretch that the same findings cover.
 * @param {string} text
 * @param {{start: number, end: number, counts: boolean}[]} findings
 * @param {(findings: Object[]) => string} describe what a mark says of its findings
 */
export function markedText(text, findings, describe) {
  const characters = Array.from(text);
  const cuts = [...new Set([0, characters.length, ...findings.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  return cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const piece = characters.slice(start, end).join('');
    const over = findings.filter((finding) => finding.start <= start && end <= finding.end);
    if (!over.length) return piece;
    return h('mark', { class: over.some(({ counts }) => counts) ? 'counts' : 'below', title: describe(over) }, piece);
  });
}
