/** What the caches hold, what they save, and what speculation saves; only what this engine has. */

import { number, percent, t } from '../shell/language.js';
import { card } from './card.js';
import { gained, rates, series } from './readings.js';

/** Make the cards. */
export function cacheCards(readings) {
  return [pages(readings), prefixes(readings), guesses(readings)].filter(Boolean);
}

function pages(readings) {
  const [all, used, kept] = ['pages', 'used_pages'].map((name) => series(readings, `fulmen_kv_${name}`)).concat([series(readings, 'fulmen_kept_prefixes')]);
  if (!all.at(-1)) return null;
  const shares = used.map((value, index) => (value === null || !all[index] ? null : value / all[index]));
  const more = t('engine.kv.what', { used: number(used.at(-1)), pages: number(all.at(-1)), kept: number(kept.at(-1) ?? 0) });
  return card(t('engine.kv'), percent(shares.at(-1)), more, [shares], 1);
}

function prefixes(readings) {
  const [reused, prompts] = ['reused_prompt', 'prompt'].map((name) => gained(readings, `fulmen_${name}_tokens_total`));
  if (reused === null || !(reused > 0 || series(readings, 'fulmen_kv_pages').at(-1))) return null; // this engine keeps none
  const more = t('engine.reused.what', { reused: number(reused), prompts: number(prompts) });
  return card(t('engine.reused'), prompts > 0 ? percent(reused / prompts) : '–', more, [rates(readings, 'fulmen_reused_prompt_tokens_total')], 10);
}

function guesses(readings) {
  const [guessed, confirmed] = ['guessed', 'confirmed'].map((name) => gained(readings, `fulmen_${name}_tokens_total`));
  if (!guessed) return null;
  const more = t('engine.guessed.what', { confirmed: number(confirmed), guessed: number(guessed) });
  return card(t('engine.guessed'), percent(confirmed / guessed), more, [rates(readings, 'fulmen_confirmed_tokens_total')], 10);
}
