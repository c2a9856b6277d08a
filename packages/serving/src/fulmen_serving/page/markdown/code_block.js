/** A block of code: its language, a button that copies it, and colours. */

import { h } from '../element.js';
import { copyButton } from '../shell/clipboard.js';
import { t } from '../shell/language.js';
import { coloured } from './colour.js';

/** Make one. */
export function codeBlock(code, language) {
  return h(
    'figure',
    { class: 'code-block' },
    h('figcaption', {}, h('span', {}, language), copyButton(() => code, t('copy.code'))),
    h('pre', { tabindex: 0 }, h('code', {}, coloured(code, language))),
  );
}
