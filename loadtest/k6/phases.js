// Warm-up, steady and overload against `tidegate demo`, in 40 seconds.
//
//   make demo                                 (in another terminal)
//   k6 run loadtest/k6/phases.js
//
// /api/resource admits 100 requests of a free client in any 60 seconds (sliding_window,
// exact). All phases fit into one such window, so exactly 100 requests may pass; start
// again only after a minute without traffic.
// BASE_URL and API_KEY change the target; one that is not loopback needs ALLOW_REMOTE=1.

import http from 'k6/http';
import { check, fail } from 'k6';
import { Counter } from 'k6/metrics';

const BASE_URL = __ENV.BASE_URL || 'http://127.0.0.1:8080';
const API_KEY = __ENV.API_KEY || 'test-client';
const QUOTA = Number(__ENV.QUOTA || 100);
const LOOPBACK = /^http:\/\/(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?$/;

const admitted = new Counter('admitted');
const refused = new Counter('refused');
const failed = new Counter('failed');

// 429 is an answer that is asked for here, not a failed request
http.setResponseCallback(http.expectedStatuses(200, 429));

function phase(name, startTime, duration, rate) {
  return {
    executor: 'constant-arrival-rate',
    exec: 'request',
    tags: { phase: name },
    startTime: `${startTime}s`,
    duration: `${duration}s`,
    rate,
    timeUnit: '1s',
    preAllocatedVUs: 20,
    maxVUs: 50,
    gracefulStop: '2s',
  };
}

export const options = {
  scenarios: {
    warm_up: phase('warm_up', 0, 5, 1),
    steady: phase('steady', 5, 15, 2),
    overload: phase('overload', 20, 20, 50),
  },
  thresholds: {
    // no failed request: everything is 200 or 429
    http_req_failed: ['rate==0'],
    failed: ['count==0'],
    checks: ['rate==1'],
    // below the quota nobody is refused; above it exactly the quota passes
    'refused{phase:warm_up}': ['count==0'],
    'refused{phase:steady}': ['count==0'],
    admitted: [`count==${QUOTA}`],
    'refused{phase:overload}': ['count>0'],
  },
};

export function setup() {
  if (!LOOPBACK.test(BASE_URL) && __ENV.ALLOW_REMOTE !== '1') {
    fail(`${BASE_URL} is not loopback: set ALLOW_REMOTE=1 if it is yours to load`);
  }
}

export function request() {
  const response = http.get(`${BASE_URL}/api/resource`, { headers: { 'X-API-Key': API_KEY } });
  if (response.status === 200) {
    admitted.add(1);
    check(response, {
      'an admitted response says what remains': (r) => Number(r.headers['X-Ratelimit-Remaining']) >= 0,
    });
  } else if (response.status === 429) {
    refused.add(1);
    check(response, {
      'a refusal says when to come back': (r) => Number(r.headers['Retry-After']) >= 1,
    });
  } else {
    failed.add(1);
  }
}
