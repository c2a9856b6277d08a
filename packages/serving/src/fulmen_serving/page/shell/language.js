/** The page's words, in the language of its user. */

import { keep, kept } from './storage.js';

/** Codes of the languages, and what their speakers call them. */
export const LANGUAGES = { en: 'English', zh: '中文' };
const TAGS = { en: 'en', zh: 'zh-CN' };

let current = 'en';
let words = {};

/** Return the language in use. */
export const language = () => current;

/** Return the words of `key`, with each {name} replaced by its value. */
export function t(key, values = {}) {
  const text = words[key];
  if (text === undefined) throw new Error(`no words for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** As `t`, or `otherwise` where there are no words for `key`: for codes that a server made up. */
export const tOr = (key, otherwise) => (key in words ? words[key] : otherwise);

/** The language chosen before, or the first of the browser's that the page speaks. */
export function preferredLanguage() {
  const wanted = [kept('fulmen.language'), ...navigator.languages].map((tag) => tag.slice(0, 2));
  return wanted.find((code) => code in LANGUAGES) ?? 'en';
}

/** Load and use a language. */
export async function useLanguage(code) {
  const response = await fetch(new URL(`../text/${code}.json`, import.meta.url));
  if (!response.ok) throw new Error(`the words of ${code}: ${response.status}`);
  words = await response.json();
  current = code;
  keep('fulmen.language', code);
  document.documentElement.lang = TAGS[code];
}

/** Write a number as the language does. */
export const number = (value, digits = 0) =>
  value.toLocaleString(TAGS[current], { maximumFractionDigits: digits, minimumFractionDigits: 0 });

/** Write a share as per cent. */
export const percent = (share) => share.toLocaleString(TAGS[current], { style: 'percent', maximumFractionDigits: 1 });

/** Write a time: of today without the date. */
export function moment(milliseconds) {
  const when = new Date(milliseconds);
  const today = when.toDateString() === new Date().toDateString();
  return when.toLocaleString(TAGS[current], today ? { timeStyle: 'medium' } : { dateStyle: 'medium', timeStyle: 'short' });
}

/** Write a day. */
export const day = (milliseconds) => new Date(milliseconds).toLocaleDateString(TAGS[current], { dateStyle: 'medium' });

/** Write a span of seconds. */
export const seconds = (value) => (value < 1 ? `${number(value * 1000, value < 0.01 ? 1 : 0)} ms` : `${number(value, 2)} s`);
