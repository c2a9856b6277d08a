/** One figure, what it means, and how it went. */

import { h } from '../element.js';
import { chart } from './chart.js';

const SHORTEST = 30; // readings that a chart shows at least

/**
 * Make one.
 * @param {string} title
 * @param {string} value
 * @param {string} more below it
 * @param {(number|null)[][]|null} lines for a chart; null: none
 * @param {number} [top] see `chart`
 */
export function card(title, value, more, lines, top) {
  return h(
    'section',
    { class: 'card' },
    h('h2', {}, title),
    h('p', { class: 'value' }, value),
    h('p', { class: 'hint' }, more),
    lines && chart(lines, Math.max(SHORTEST, lines[0].length), top),
  );
}
