/** The server's metrics: Prometheus' text, and what two readings of it say about the time between. */

/**
 * Parse Prometheus' text format, version 0.0.4.
 * @param {string} text
 * @returns {Map<string, {help: string, type: string, samples: {name: string, labels: Object, value: number}[]}>}
 */
export function parseMetrics(text) {
  const families = new Map();
  const family = (name) => {
    if (!families.has(name)) families.set(name, { help: '', type: 'untyped', samples: [] });
    return families.get(name);
  };
  let current = null;
  for (const line of text.split('\n')) {
    const comment = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line);
    if (comment) {
      const [, kind, name, rest] = comment;
      current = name;
      family(name)[kind.toLowerCase()] = rest;
      continue;
    }
    const sample = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!sample) continue;
    const [, name, labels = '', value] = sample;
    const owner = current !== null && name.startsWith(current) ? current : name;
    family(owner).samples.push({ name, labels: parseLabels(labels), value: numberOf(value) });
  }
  // the time at which a counter was made is no measurement
  for (const name of families.keys()) if (name.endsWith('_created')) families.delete(name);
  return families;
}

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value.replace(/\\(.)/g, '$1');
  return labels;
}

const numberOf = (text) => ({ '+Inf': Infinity, '-Inf': -Infinity })[text] ?? Number(text);

/** The value of a metric without labels, or null. */
export function valueOf(families, name) {
  return families.get(name)?.samples.find((sample) => sample.name === name)?.value ?? null;
}

/** The sum over all labels of a counter or gauge. */
export const sumOf = (family) => family.samples.reduce((sum, sample) => sum + sample.value, 0);

/**
 * A quantile of what a histogram observed between two readings, by linear interpolation within a bucket, as Prometheus does.
 * @returns {number|null} null: nothing was observed
 */
export function quantile(earlier, later, name, share) {
  const before = new Map(buckets(earlier, name));
  const counts = buckets(later, name).map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const index = counts.findIndex(([, count]) => count >= share * all);
  const [lower, below] = index === 0 ? [0, 0] : counts[index - 1];
  const [upper, reached] = counts[index];
  if (upper === Infinity) return lower;
  return lower + ((upper - lower) * (share * all - below)) / (reached - below);
}

function buckets(families, name) {
  const samples = families.get(name)?.samples ?? [];
  return samples.filter((sample) => sample.name === `${name}_bucket`).map(({ labels, value }) => [numberOf(labels.le), value]);
}
