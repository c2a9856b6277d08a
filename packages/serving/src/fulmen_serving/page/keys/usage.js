/** What was used, by organisation, key and model. */

import { h } from '../element.js';
import { admin } from '../server/here.js';
import { number, t } from '../shell/language.js';
import { dataTable } from '../shell/table.js';

const SPANS = ['24h', '7d', '30d', ''];

/** The section, and what fills it. */
export function usageSection(left) {
  const place = h('div', { 'aria-live': 'polite' });
  const span = h(
    'select',
    { id: 'usage-span', onchange: () => refresh() },
    SPANS.map((value) => h('option', { value }, t(`usage.span.${value || 'all'}`))),
  );
  const refresh = async () => {
    try {
      const query = span.value ? `?since=${span.value}` : '';
      place.replaceChildren(usageTable(await admin.json(`admin/v1/usage${query}`, { signal: left })));
    } catch (error) {
      if (!left.aborted) place.replaceChildren(h('p', { class: 'fault', role: 'alert' }, error.message));
    }
  };
  const again = h('button', { type: 'button', onclick: () => refresh() }, t('usage.refresh'));
  const element = h(
    'section',
    { class: 'block' },
    h('div', { class: 'row' }, h('h2', { class: 'grow' }, t('usage.title')), h('label', { for: 'usage-span' }, t('usage.span')), span, again),
    place,
  );
  return { element, refresh };
}

function usageTable({ data, total }) {
  if (!data.length) return h('p', { class: 'nothing' }, t('usage.none'));
  const columns = [
    { title: t('keys.organisation') }, { title: t('usage.key') }, { title: t('model') },
    ...['requests', 'prompt_tokens', 'completion_tokens', 'cost'].map((name) => ({ title: t(`usage.${name}`), number: true })),
  ];
  const used = (one) => [number(one.requests), number(one.prompt_tokens), number(one.completion_tokens), one.cost];
  return dataTable(t('usage.title'), columns, data.map((row) => [row.organisation, row.key, row.model, ...used(row)]), [t('usage.total'), '', '', ...used(total)]);
}
