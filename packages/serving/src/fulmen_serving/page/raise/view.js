/** What the guard did: the last requests by what became of them, without their text. */

import { h } from '../element.js';
import { admin } from '../server/here.js';
import { moment, number, percent, seconds, t, tOr } from '../shell/language.js';
import { poll } from '../shell/polling.js';
import { adminNotice } from '../keys/admin_notice.js';
import { dataTable } from '../shell/table.js';
import { outcome, OUTCOMES } from './outcome.js';
import { tryText } from './try_text.js';

const EVERY = 3000;

/**
 * Show it.
 * @param {Object} options
 * @param {AbortSignal} options.left when the view is left
 */
export function raiseView({ left }) {
  const body = h('div', { class: 'view-body' });
  const chosen = { outcome: '' };
  let last = null;
  const show = () => body.replaceChildren(...content(last, chosen, show));
  const ask = async () => {
    try {
      const found = await admin.json('admin/v1/requests', { signal: left });
      if (JSON.stringify(found) === JSON.stringify(last)) return true; // nothing moves under the reader
      last = found;
      show();
      return true;
    } catch (error) {
      if (!left.aborted) body.replaceChildren(adminNotice(error, t('raise.needs'), () => poll(ask, EVERY, left)));
      return false;
    }
  };
  poll(ask, EVERY, left);
  return h('div', { class: 'figures-view' }, h('header', { class: 'view-head' }, h('h1', { tabindex: -1 }, t('raise.title'))), h('div', { class: 'view-body' }, tryText()), body);
}

function content({ data: records, keep }, chosen, show) {
  const policy = records.find((record) => record.policy)?.policy;
  const intro = h('p', { class: 'hint' }, records.length && !policy ? t('raise.unguarded') : t('raise.kept', { count: number(records.length), keep: number(keep) }), policy && ` ${t('raise.policy', { policy })}`);
  if (!records.length) return [intro, h('p', { class: 'nothing' }, t('raise.none'))];
  const counts = new Map(OUTCOMES.map((name) => [name, records.filter((record) => outcome(record) === name).length]));
  const filters = h(
    'div',
    { class: 'cards outcomes', role: 'group', 'aria-label': t('raise.filter') },
    [...counts].map(([name, count]) =>
      h(
        'button',
        {
          type: 'button', class: `card ${name}`, 'aria-pressed': String(chosen.outcome === name), data: { outcome: name },
          onclick: () => {
            chosen.outcome = chosen.outcome === name ? '' : name;
            show();
            document.querySelector(`[data-outcome="${name}"]`).focus();
          },
        },
        h('span', { class: 'title' }, t(`outcome.${name}`)),
        h('span', { class: 'value' }, number(count)),
        h('span', { class: 'hint' }, percent(count / records.length)),
      )),
  );
  const shown = records.filter((record) => !chosen.outcome || outcome(record) === chosen.outcome);
  return [intro, filters, categories(records), requests(shown)];
}

/** How often each category was found, in what went in and what came out. */
function categories(records) {
  const counts = new Map();
  for (const record of records) {
    const found = new Set([...record.input_findings, record.input_category, ...record.answers.flatMap(({ findings, category }) => [...findings, category])]);
    found.delete('');
    for (const code of found) counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  if (!counts.size) return '';
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([code, count]) =>
    h('li', {}, h('span', {}, categoryName(code)), h('meter', { min: 0, max: records.length, value: count, 'aria-label': categoryName(code) }), h('span', { class: 'count' }, number(count))));
  return h('section', { class: 'block' }, h('h2', {}, t('raise.categories')), h('ul', { class: 'bars' }, rows));
}

const categoryName = (code) => tOr(`category.${code}`, code);

function requests(records) {
  const columns = [
    { title: t('raise.time') }, { title: t('raise.outcome') }, { title: t('raise.input') }, { title: t('raise.output') },
    { title: t('raise.judged'), number: true }, { title: t('raise.tokens'), number: true }, { title: t('raise.seconds'), number: true },
  ];
  const rows = records.map((record) => [
    h('time', { datetime: new Date(record.ended * 1000).toISOString(), title: record.request_id }, moment(record.ended * 1000)),
    h('span', { class: `badge ${outcome(record)}` }, t(`outcome.${outcome(record)}`)),
    chips([record.input_category, ...record.input_findings], record.input_seen),
    [chips(foundInAnswers(record), record.answers.flatMap(({ seen }) => seen)), failedDetectors(record)],
    record.input_seconds === null ? '–' : seconds(record.input_seconds),
    `${number(record.prompt_tokens)} + ${number(record.completion_tokens)}`,
    seconds(record.seconds),
  ]);
  return h('section', { class: 'block' }, h('h2', {}, t('raise.requests')), dataTable(t('raise.requests'), columns, rows));
}

/** The answer to a blocked request carries what was found in its input: the model gave none. */
function foundInAnswers({ input_action: action, answers }) {
  return action === 'block' ? [] : answers.flatMap(({ category, findings }) => [category, ...findings]);
}

/** Categories; each says on hover by which detectors, how sure they were. */
function chips(codes, seen) {
  const found = [...new Set(codes)].filter(Boolean);
  if (!found.length) return '–';
  const by = (code) => [...new Set(seen.filter(({ category }) => category === code).map(({ detector, label, score }) => `${detector}${label && `: ${label}`} ${score.toFixed(2)}`))];
  return h('span', { class: 'chips' }, found.map((code) => h('span', { class: 'chip', title: by(code).join('\n') || null }, categoryName(code))));
}

/** The detectors that gave no result on this request. */
function failedDetectors({ input_degraded: first, answers }) {
  const failed = [...new Set([...first, ...answers.flatMap(({ degraded }) => degraded)])];
  return failed.length > 0 && h('span', { class: 'chips' }, failed.map((name) => h('span', { class: 'badge blocked' }, t('raise.failed', { name }))));
}
