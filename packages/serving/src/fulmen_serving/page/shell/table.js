/** A table of data in a frame that scrolls where there is no room. */

import { h } from '../element.js';

/**
 * Make one.
 * @param {string} caption read by screen readers only
 * @param {{title: string, number?: boolean}[]} columns
 * @param {(Node|string)[][]} rows
 * @param {(Node|string)[]} [total] a last row
 */
export function dataTable(caption, columns, rows, total) {
  const cells = (row, tag) => row.map((cell, index) =>
    h(index === 0 ? 'th' : tag, { scope: index === 0 ? 'row' : null, class: columns[index].number ? 'number' : null }, cell));
  return h(
    'div',
    { class: 'data-frame', tabindex: 0, role: 'group', 'aria-label': caption },
    h(
      'table',
      { class: 'data' },
      h('caption', { class: 'visually-hidden' }, caption),
      h('thead', {}, h('tr', {}, columns.map(({ title, number }) => h('th', { scope: 'col', class: number ? 'number' : null }, title)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, cells(row, 'td')))),
      total && h('tfoot', {}, h('tr', {}, cells(total, 'td'))),
    ),
  );
}
