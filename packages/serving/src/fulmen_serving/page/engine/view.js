/** The engine at work: what runs and waits, how fast it answers, and every metric there is, by its name. */

import { h } from '../element.js';
import { here } from '../server/here.js';
import { parseMetrics, quantile, valueOf } from '../server/metrics.js';
import { number, percent, seconds, t } from '../shell/language.js';
import { poll } from '../shell/polling.js';
import { renew } from '../shell/renew.js';
import { cacheCards } from './cache_cards.js';
import { card } from './card.js';
import { metricTable } from './metric_table.js';
import { lately, rates, series } from './readings.js';

const EVERY = 1000;
const KEPT = 121; // two minutes

/**
 * Show it.
 * @param {Object} options
 * @param {AbortSignal} options.left when the view is left
 */
export function engineView({ left }) {
  const readings = [];
  const state = h('p', { class: 'hint', role: 'status' });
  const charts = h('div', { class: 'cards' });
  const times = h('div', { class: 'cards' });
  const tables = h('div', {});
  poll(async () => {
    try {
      const response = await here.request('metrics', { signal: left });
      readings.push({ at: performance.now() / 1000, families: parseMetrics(await response.text()) });
    } catch (error) {
      if (!left.aborted) state.textContent = t('engine.unreachable', { reason: error.message });
      return;
    }
    if (readings.length > KEPT) readings.shift();
    state.textContent = t('engine.window');
    renew(charts, chartCards(readings));
    renew(times, timeCards(readings));
    renew(tables, metricTable(readings.at(-1), readings.at(-Math.min(readings.length, 11))));
  }, EVERY, left);
  return h(
    'div',
    { class: 'figures-view' },
    h('header', { class: 'view-head' }, h('h1', { tabindex: -1 }, t('view.engine'))),
    h('div', { class: 'view-body' }, state, charts, times, tables),
  );
}

const shown = (value, write) => (value === null ? '–' : write(value));

function chartCards(readings) {
  const last = readings.at(-1).families;
  const generated = rates(readings, 'fulmen_generated_tokens_total');
  const computed = rates(readings, 'fulmen_step_tokens_total');
  const [running, queued, busy] = ['fulmen_running_requests', 'fulmen_queued_requests', 'fulmen_model_busy_fraction'].map((name) => series(readings, name));
  const fractions = [...last].filter(([name]) => name.endsWith('_fraction') && name !== 'fulmen_model_busy_fraction');
  return [
    card(t('engine.generated'), shown(lately(generated), (rate) => number(rate, 1)), t('engine.computed', { rate: shown(lately(computed), (rate) => number(rate, 1)) }), [generated], 10),
    card(t('engine.running'), shown(running.at(-1), number), t('engine.queued', { count: shown(queued.at(-1), number) }), [running, queued], 4),
    card(t('engine.busy'), shown(busy.at(-1), percent), t('engine.busy.what'), [busy], 1),
    ...cacheCards(readings),
    ...fractions.map(([name, { help }]) => card(readable(name), percent(valueOf(last, name)), help, [series(readings, name)], 1)),
  ];
}

function timeCards(readings) {
  const [first, last] = [readings[0].families, readings.at(-1).families];
  const times = (name) => [0.5, 0.95].map((share) => shown(quantile(first, last, name, share), seconds)).join(' / ');
  return [
    card(t('engine.first'), times('fulmen_time_to_first_token_seconds'), t('engine.quantiles'), null),
    card(t('engine.request'), times('fulmen_request_seconds'), t('engine.quantiles'), null),
    card(t('engine.step'), times('fulmen_step_seconds'), t('engine.quantiles'), null),
  ];
}

/** "fulmen_kv_used_fraction" as "KV used": what an engine measures besides has its own name, and no words here. */
function readable(name) {
  const words = name.replace(/^fulmen_|_fraction$/g, '').replaceAll('_', ' ').replace(/\bkv\b/, 'KV');
  return words[0].toUpperCase() + words.slice(1);
}
