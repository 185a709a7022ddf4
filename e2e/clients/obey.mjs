// Published JavaScript clients against a limit: do they understand a refusal, and is the next try, made when told,
// served?
//
// Usage: node obey.mjs BASE_URL ROUNDS. Prints one JSON object a client. The API key of each client is its own name.

import assert from "node:assert";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { Ollama } from "ollama";
import OpenAI from "openai";

const [base, rounds] = [process.argv[2].replace(/\/$/, ""), Number(process.argv[3])];
const model = "tiny";
// How often a client may be served before it meets a refusal.
const PATIENCE = 200;

function openaiClient(maxRetries) {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "key-of-openai-node", maxRetries });
  const messages = [{ role: "user", content: "a" }];
  return {
    ask: () => client.chat.completions.create({ model, max_tokens: 1, messages }),
    understand(error) {
      assert(error instanceof OpenAI.RateLimitError, String(error));
      assert.deepStrictEqual([error.code, error.type], ["rate_limit_exceeded", "requests"]);
      return Number(error.headers.get("retry-after-ms"));
    },
  };
}

function ollamaClient() {
  const client = new Ollama({ host: base, headers: { Authorization: "Bearer key-of-ollama-node" } });
  return {
    ask: () => client.generate({ model, prompt: "a", options: { num_predict: 1 } }),
    understand(error) {
      assert.strictEqual(error.status_code, 429, String(error));
      // Its errors carry no headers: the text alone says when to come back.
      return Number(/Retry in (?:about )?([0-9.]+)s\./.exec(error.message)[1]) * 1000;
    },
  };
}

async function meetRefusal({ ask, understand }) {
  for (let tries = 0; tries < PATIENCE; tries += 1) {
    try {
      await ask();
    } catch (error) {
      return understand(error);
    }
  }
  throw new Error(`${PATIENCE} requests in a row, and none was refused`);
}

async function tell(name, make, retriesItself) {
  const version = createRequire(import.meta.url)(`./node_modules/${name}/package.json`).version;
  const told = { client: `${name}-node`, version, rounds, served: 0, wrong: [] };
  try {
    const client = make(0);
    for (let round = 0; round < rounds; round += 1) {
      await sleep(await meetRefusal(client));
      await client.ask().then(
        () => (told.served += 1),
        (error) => told.wrong.push(String(error).slice(0, 300)),
      );
    }
    if (retriesItself) {
      for (let request = 0; request < 10; request += 1) await make(5).ask();
      told.alone = 10;
    }
  } catch (error) {
    told.failed = String(error).slice(0, 500);
  }
  console.log(JSON.stringify(told));
}

await Promise.all([tell("openai", openaiClient, true), tell("ollama", ollamaClient, false)]);
