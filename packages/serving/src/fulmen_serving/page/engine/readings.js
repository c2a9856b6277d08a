/** What a series of readings of the metrics says. A reading is {at: seconds, families}, see `server/metrics.js`. */

import { valueOf } from '../server/metrics.js';

/** The value at each reading, null where there was none. */
export const series = (readings, name) => readings.map(({ families }) => valueOf(families, name));

/** What a counter did a second between each two readings. */
export function rates(readings, name) {
  return readings.slice(1).map(({ at, families }, index) => {
    const [now, before] = [valueOf(families, name), valueOf(readings[index].families, name)];
    return now === null || before === null ? null : Math.max(0, (now - before) / (at - readings[index].at));
  });
}

/** The mean of the last few: a step of the engine may take longer than the time between two readings. */
export function lately(values) {
  const some = values.slice(-5).filter((value) => value !== null);
  return some.length ? some.reduce((sum, value) => sum + value, 0) / some.length : null;
}

/** What a counter did over all readings. */
export function gained(readings, name) {
  const [first, last] = [readings[0], readings.at(-1)].map(({ families }) => valueOf(families, name));
  return first === null || last === null ? null : last - first;
}
