/** Every metric by its name, with what it means in the server's words: what a new engine measures appears by itself. */

import { h } from '../element.js';
import { sumOf } from '../server/metrics.js';
import { number, percent, seconds, t } from '../shell/language.js';
import { dataTable } from '../shell/table.js';

/** What belongs together, by words in a metric's name; the first that fits. */
const GROUPS = [
  ['cache', /kv|page|prefix|cache|evict|reused/],
  ['speculation', /speculat|draft|guess|confirm/],
  ['requests', /request|refus|queue|first_token|answer|preempt/],
  ['model', /./],
];

/**
 * Make a table for each group.
 * @param {{at: number, families: Map}} last
 * @param {{at: number, families: Map}} earlier for what counters did a second
 */
export function metricTable(last, earlier) {
  const groups = new Map(GROUPS.map(([name]) => [name, []]));
  for (const [name, family] of last.families) {
    const before = earlier.families.get(name);
    const row = family.type === 'histogram' ? histogramRow(name, family) : valueRow(name, family, before, last.at - earlier.at);
    groups.get(GROUPS.find(([, pattern]) => pattern.test(name))[0]).push(row);
  }
  const columns = [{ title: t('metric') }, { title: t('metric.meaning') }, { title: t('metric.value'), number: true }, { title: t('metric.rate'), number: true }];
  return [...groups]
    .filter(([, rows]) => rows.length)
    .map(([name, rows]) => h('section', { class: 'block' }, h('h2', {}, t(`metrics.${name}`)), dataTable(t(`metrics.${name}`), columns, rows)));
}

function valueRow(name, family, before, span) {
  const value = sumOf(family);
  const labelled = family.samples.filter(({ labels }) => Object.keys(labels).length);
  const parts = labelled.map(({ labels, value: part }) => `${Object.values(labels).join(', ')}: ${number(part, 2)}`);
  const rate = family.type === 'counter' && before && span > 0 ? number((value - sumOf(before)) / span, 1) : '';
  return [code(name), family.help, written(name, value, parts), rate];
}

function histogramRow(name, family) {
  const of = (suffix) => family.samples.find((sample) => sample.name === name + suffix)?.value ?? 0;
  const count = of('_count');
  const mean = count ? of('_sum') / count : null;
  const shown = mean === null ? '–' : t('metric.mean', { value: name.endsWith('_seconds') ? seconds(mean) : number(mean, 2), count: number(count) });
  return [code(name), family.help, shown, ''];
}

function written(name, value, parts) {
  if (/(fraction|ratio|share)$/.test(name)) {
    return h('span', { class: 'with-bar' }, h('meter', { min: 0, max: 1, value, 'aria-label': name }), percent(value));
  }
  if (parts.length) return parts.join(' · ');
  if (/bytes$/.test(name)) return bytes(value);
  return number(value, 2);
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${number(value / 1024 ** power, 1)} ${units[power]}`;
}

const code = (name) => h('code', {}, name);
