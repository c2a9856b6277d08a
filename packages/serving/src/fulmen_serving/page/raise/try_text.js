/** Try a text: what every detector of the guard says of it, where, and what each component would do. Nothing is kept. */

import { h } from '../element.js';
import { admin } from '../server/here.js';
import { number, t, tOr } from '../shell/language.js';
import { dataTable } from '../shell/table.js';
import { markedText } from './marked_text.js';

const MILD = ['keep', 'allow', '0'];
/** A finding of the whole text, as learned detectors have them: marking it would drown the others. */
const isWhole = ({ text: found }, text) => found === text;
const categoryName = (code) => tOr(`category.${code}`, code);
const figure = (value) => value.toFixed(2);

/** The form and, under it, what came of the last text. */
export function tryText() {
  const result = h('div', { class: 'explained', 'aria-live': 'polite' });
  const field = h('textarea', { id: 'try-text', rows: 3, maxlength: 100_000, placeholder: t('try.placeholder') });
  const button = h('button', { type: 'submit', class: 'primary' }, t('try.ask'));
  const form = h('form', { class: 'try-text' }, h('label', { for: 'try-text' }, t('try.label')), field, button);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (!field.value) return field.focus();
    button.disabled = true;
    try {
      result.replaceChildren(...explained(await admin.json('admin/v1/explain', { method: 'POST', body: { text: field.value } })));
    } catch (error) {
      result.replaceChildren(h('p', { class: 'nothing', role: 'alert' }, error.message));
    } finally {
      button.disabled = false;
    }
  });
  return h('section', { class: 'block' }, h('h2', {}, t('try.title')), h('p', { class: 'hint' }, t('try.hint')), form, result);
}

function explained({ text, views, detectors, phases }) {
  const findings = detectors.flatMap((one) => one.findings.map((finding) => ({ ...finding, detector: one.detector })));
  const describe = (over) => over.map((one) => `${categoryName(one.category)}: ${one.label || one.detector} ${figure(one.score)}`).join('\n');
  return [
    h('div', { class: 'cards phases' }, Object.values(phases).map(phaseCard)),
    h('p', { class: 'marked' }, markedText(text, findings.filter((one) => !isWhole(one, text)), describe)),
    views.length > 1 && h('p', { class: 'hint' }, t('try.views', { views: views.slice(1).map(({ name }) => name).join(', ') })),
    detectorTable(detectors),
    findings.length > 0 && findingTable(findings, text),
  ].filter(Boolean);
}

function phaseCard({ phase, action, why, text }) {
  return h(
    'div',
    { class: 'card', data: { phase } },
    h('h3', { class: 'title' }, t(`phase.${phase}`)),
    h('p', {}, h('span', { class: `badge ${badgeOf(action)}` }, action)),
    h('p', { class: 'hint' }, why),
    !MILD.includes(action) && phase !== 'reward' && h('p', { class: 'goes-on' }, text),
  );
}

function badgeOf(action) {
  if (MILD.includes(action)) return 'allowed';
  return ['redact', 'rewrite'].includes(action) ? 'rewritten' : 'blocked';
}

function detectorTable(detectors) {
  const columns = [
    { title: t('try.detector') }, { title: t('try.phases') }, { title: t('try.verdict') }, { title: t('try.scores') },
    { title: t('try.milliseconds'), number: true },
  ];
  const rows = detectors.map((one) => [
    one.detector, one.phases.map((phase) => t(`phase.${phase}`)).join(', '), verdictOf(one), scoresOf(one), figure(one.milliseconds),
  ]);
  return dataTable(t('try.detectors'), columns, rows);
}

function verdictOf({ failure, findings }) {
  if (failure) return h('span', { class: 'badge blocked', title: failure }, failure);
  const counting = findings.filter(({ counts }) => counts).length;
  if (counting) return h('span', { class: 'badge withheld' }, t('try.found', { count: number(counting) }));
  return h('span', { class: 'badge allowed' }, findings.length ? t('try.below') : t('try.nothing'));
}

/** A detector's opinion of the whole text where it has one, else its findings' highest scores; the three highest. */
function scoresOf({ scores, findings }) {
  const best = new Map(Object.entries(scores ?? {}));
  for (const { category, score } of scores ? [] : findings) best.set(category, Math.max(score, best.get(category) ?? 0));
  const shown = [...best].filter(([, score]) => score >= 0.005).sort((a, b) => b[1] - a[1]).slice(0, 3);
  if (!shown.length) return '–';
  return h('ul', { class: 'scores' }, shown.map(([code, score]) =>
    h('li', {}, h('span', {}, categoryName(code)), h('meter', { min: 0, max: 1, value: score, 'aria-label': categoryName(code) }), h('span', { class: 'count' }, figure(score)))));
}

function findingTable(findings, text) {
  const columns = [
    { title: t('try.where') }, { title: t('try.category') }, { title: t('try.by') }, { title: t('try.score'), number: true },
    { title: t('try.threshold'), number: true }, { title: t('try.seen') },
  ];
  const rows = findings.map((one) => [
    isWhole(one, text) ? t('try.whole') : h('code', {}, one.text.length > 60 ? `${one.text.slice(0, 60)}…` : one.text), categoryName(one.category),
    one.label ? `${one.detector}: ${one.label}` : one.detector,
    h('span', { class: one.counts ? 'reached' : null }, figure(one.score)), figure(one.threshold), one.views.join(', '),
  ]);
  return dataTable(t('try.findings'), columns, rows);
}
