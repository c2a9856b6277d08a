/** The parameters of a conversation: what may be set, and the fields of a request that they become. */

import { h } from '../element.js';
import { t } from '../shell/language.js';

/** Numbers that a request may set; one that is not set is the model's default. */
export const NUMBERS = {
  temperature: { min: 0, max: 2, step: 0.1 },
  top_p: { min: 0.01, max: 1, step: 0.01 },
  max_tokens: { min: 1, step: 1 },
  seed: { step: 1 },
  presence_penalty: { min: -2, max: 2, step: 0.1 },
  frequency_penalty: { min: -2, max: 2, step: 0.1 },
};

/** Return the fields of a request. Throws if the further fields are no JSON object. */
export function requestFields(parameters) {
  const fields = {};
  for (const name of Object.keys(NUMBERS)) {
    if (Number.isFinite(parameters[name])) fields[name] = parameters[name];
  }
  const stops = (parameters.stop ?? '').split('\n').filter((line) => line !== '');
  if (stops.length) fields.stop = stops;
  return { ...furtherFields(parameters.further ?? ''), ...fields };
}

function furtherFields(text) {
  if (text.trim() === '') return {};
  let value = null;
  try {
    value = JSON.parse(text);
  } catch { /* said below */ }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(t('parameters.further.wrong'));
  return value;
}

/**
 * The form.
 * @param {Object} conversation changed in place, field by field
 * @param {() => void} changed
 */
export function parametersForm(conversation, changed) {
  const { parameters } = conversation;
  const set = (name, value) => {
    if (value === '' || Number.isNaN(value)) delete parameters[name];
    else parameters[name] = value;
    changed();
  };
  const system = h('textarea', {
    id: 'system-prompt', rows: 5, value: conversation.system, placeholder: t('parameters.system.none'),
    oninput: () => { conversation.system = system.value; changed(); },
  });
  const numbers = Object.entries(NUMBERS).map(([name, limits]) => {
    const field = h('input', {
      type: 'number', id: `parameter-${name}`, ...limits, value: parameters[name] ?? '', placeholder: t('parameters.default'),
      onchange: () => { if (field.reportValidity()) set(name, field.valueAsNumber); },
    });
    return h('div', { class: 'field' }, h('label', { for: field.id }, t(`parameters.${name}`)), field);
  });
  const stop = h('textarea', {
    id: 'parameter-stop', rows: 2, value: parameters.stop ?? '', oninput: () => set('stop', stop.value),
  });
  const further = h('textarea', {
    id: 'parameter-further', rows: 4, class: 'code', spellcheck: 'false', value: parameters.further ?? '',
    placeholder: '{"response_format": …, "tools": […]}', 'aria-describedby': 'parameter-further-fault',
    oninput: () => {
      set('further', further.value);
      let fault = '';
      try { furtherFields(further.value); } catch (error) { fault = error.message; }
      warning.textContent = fault;
      further.setAttribute('aria-invalid', String(fault !== ''));
    },
  });
  const warning = h('p', { id: 'parameter-further-fault', class: 'fault', role: 'status' });
  return h(
    'form',
    { class: 'stack', onsubmit: (event) => event.preventDefault() },
    h('label', { for: 'system-prompt' }, t('parameters.system')),
    system,
    h('div', { class: 'fields' }, numbers),
    h('label', { for: 'parameter-stop' }, t('parameters.stop')),
    stop,
    h('label', { for: 'parameter-further' }, t('parameters.further')),
    further,
    warning,
  );
}
