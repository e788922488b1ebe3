package running

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"weak"

	"github.com/countersign-dev/countersign/internal/compliance"
)

// contents interns compliance.Pods: Pods that an evaluation cannot distinguish use one. The
// replicas of a controller differ only in their names. The pointers are weak, so the garbage
// collector frees an entry with its last Pod. The zero value is ready for use.
type contents struct {
	mu    sync.Mutex
	known map[fingerprint]weak.Pointer[compliance.Pod]
}

// fingerprint identifies a compliance.Pod by everything in it. It is a cryptographic hash: owner
// references and images come from users, who must not be able to make two Pods look alike.
type fingerprint [sha256.Size]byte

// intern returns the one compliance.Pod that equals p. Callers must not change it.
func (c *contents) intern(p compliance.Pod) *compliance.Pod {
	key := fingerprintOf(&p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.known[key].Value(); known != nil {
		return known
	}
	if c.known == nil {
		c.known = make(map[fingerprint]weak.Pointer[compliance.Pod])
	}
	interned := &p
	c.known[key] = weak.Make(interned)
	runtime.AddCleanup(interned, c.forget, key)
	return interned
}

// forget removes an entry whose compliance.Pod is gone, unless an equal one has replaced it.
func (c *contents) forget(key fingerprint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[key].Value() == nil {
		delete(c.known, key)
	}
}

// fingerprintOf hashes every string behind its length, so that no two Pods give the same bytes.
func fingerprintOf(p *compliance.Pod) fingerprint {
	w, r := &p.Workload, &p.Controller
	text := make([]byte, 0, 512)
	for _, s := range []string{
		w.APIVersion, w.Kind, w.Namespace, w.Name, r.APIVersion, r.Kind, r.Name, string(r.UID),
	} {
		text = appendString(text, s)
	}
	for _, image := range p.Images {
		text = appendString(appendString(text, image.Spec), image.Digest)
	}
	return sha256.Sum256(text)
}

func appendString(text []byte, s string) []byte {
	return append(binary.AppendUvarint(text, uint64(len(s))), s...)
}
