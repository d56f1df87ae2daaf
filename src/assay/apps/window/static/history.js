// Conversations, kept in this browser and nowhere else: a bounded number of them, the oldest go first.
const NAME = "assay-chat";
const STORE = "conversations";
const MOST = 100;
const MOST_CHARACTERS = 8_000_000; // of one conversation

/** Where conversations are kept. Without storage (private windows of some browsers) they last as long as the page. */
export class History {
  #database;
  #here = new Map();
  #last = 0;

  constructor(database) {
    this.#database = database;
  }

  /** Opens it. */
  static async open() {
    try {
      const asked = indexedDB.open(NAME, 1);
      asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id" });
      return new History(await done(asked));
    } catch {
      return new History(null);
    }
  }

  /** Whether conversations outlive the page. */
  get lasts() {
    return this.#database !== null;
  }

  /** All of them, the last changed first. */
  async all() {
    const found = this.#database ? await done(this.#store("readonly").getAll()) : [...this.#here.values()];
    return found.sort((one, other) => other.changed - one.changed);
  }

  /** Keep one as it is now; those that are too many are dropped. */
  async keep(conversation) {
    this.#last = Math.max(Date.now(), this.#last + 0.001); // an order also for changes within a millisecond
    const kept = { ...structuredClone(conversation), changed: this.#last };
    while (kept.turns.length > 1 && size(kept) > MOST_CHARACTERS) kept.turns.shift();
    if (!this.#database) this.#here.set(kept.id, kept);
    else await done(this.#store("readwrite").put(kept));
    const count = this.#database ? await done(this.#store("readonly").count()) : this.#here.size;
    if (count > MOST) for (const old of (await this.all()).slice(MOST)) await this.drop(old.id);
  }

  /** Forget one. */
  async drop(id) {
    this.#here.delete(id);
    if (this.#database) await done(this.#store("readwrite").delete(id));
  }

  /** Forget all. */
  async clear() {
    this.#here.clear();
    if (this.#database) await done(this.#store("readwrite").clear());
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

function size(conversation) {
  return conversation.turns.reduce((sum, { question, text }) => sum + question.length + text.length, 0);
}

function done(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = asked.onblocked = () => reject(asked.error);
  });
}
