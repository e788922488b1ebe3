package store

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// weighty is a fact with a size.
type weighty struct {
	fact
	size int64
}

func (w *weighty) Size() int64 { return w.size }

func repository(path string) imageref.Ref {
	return imageref.Ref{Host: "registry.example.com", Path: path, Tag: "v1"}
}

// sized is a trust root whose repositories have sizes, by path.
func sized(sizes map[string]int64) *scripted {
	return &scripted{fetchOf: func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		return &weighty{size: sizes[repository]}, nil
	}}
}

const prefix = "registry.example.com/"

func TestThreatEvidenceIsBounded(t *testing.T) {
	sizes := map[string]int64{
		prefix + "acme/a": 40, prefix + "acme/b": 40, prefix + "acme/large": 30, prefix + "acme/small": 20,
	}
	b := newBench(sized(sizes))
	b.options.MaxSize = 100
	for _, path := range []string{"acme/a", "acme/b"} {
		if err := b.Ensure(t.Context(), key(repository(path))); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Ensure(t.Context(), key(repository("acme/large")))
	if trust.AsFault(err, "").Reason != v1alpha1.ReasonTooLarge {
		t.Fatalf("got %v for what does not fit", err)
	}
	if _, _, err := b.Load().Evidence(key(repository("acme/large"))); trust.AsFault(err,
		"").Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("got %v when it is decided on", err)
	}
	if err := b.Ensure(t.Context(), key(repository("acme/small"))); err != nil {
		t.Errorf("got %v for what fits", err)
	}
	before, _, _ := b.Load().Evidence(key(repository("acme/a")))
	sizes[prefix+"acme/a"] = 41
	b.clock.Step(time.Minute)
	err = b.Renew(t.Context(), key(repository("acme/a")), b.clock.Now())
	if trust.AsFault(err, "").Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("got %v for one that has grown", err)
	}
	if held, _, err := b.Load().Evidence(key(repository("acme/a"))); held != before || err != nil {
		t.Errorf("what was held of it is %v, error %v", held, err)
	}
	b.Release(acmeKey(prefix + "acme/b"))
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), key(repository("acme/a")), b.clock.Now()); err != nil {
		t.Errorf("got %v though another was released", err)
	}
	if got := b.Load().size; got != 61 {
		t.Errorf("%d bytes are counted, want 61", got)
	}
	b.DropRoot("acme")
	if got := b.Load().size; got != 0 {
		t.Errorf("%d bytes are counted of nothing", got)
	}
}

// At the start, small repositories are restored first, so large ones cannot displace them.
func TestThreatLargeRecordsDisplaceNoSmallOnes(t *testing.T) {
	root := &scripted{unpack: func(packed []byte, _ trust.Evidence) (trust.Evidence, error) {
		return &weighty{size: int64(packed[0])}, nil
	}}
	b := newBench(&scripted{})
	b.options.MaxSize = 100
	records := map[string][]byte{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		records[prefix+"small/"+name], records[prefix+"large/"+name] = []byte{10}, []byte{45}
	}
	faults, err := b.PutRootWith("acme", Root{Verifier: root}, written(records), never)
	if err != nil {
		t.Fatal(err)
	}
	for repository, fault := range faults {
		if fault.Reason != v1alpha1.ReasonTooLarge || repository.Repository[:len(prefix)+5] != prefix+"large" {
			t.Errorf("%s has fault %v", repository, fault)
		}
	}
	if len(faults) != 4 || b.Load().size != 95 {
		t.Errorf("%d repositories do not fit and %d bytes are held, want 4 and 95", len(faults), b.Load().size)
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if _, _, err := b.Load().Evidence(key(repository("small/" + name))); err != nil {
			t.Errorf("small/%s: %v", name, err)
		}
	}
}

// heavy is a fact of 1 MiB.
type heavy struct {
	fact
	bytes []byte
}

func (h *heavy) Size() int64 { return int64(len(h.bytes)) }

// The restore of records never uses more memory than the limit of the evidence in use.
func TestThreatRecordsAreHeldWithinTheBound(t *testing.T) {
	const most, records = 8, 100
	root := &scripted{unpack: func([]byte, trust.Evidence) (trust.Evidence, error) {
		return &heavy{bytes: make([]byte, 1<<20)}, nil
	}}
	b := newBench(&scripted{})
	b.options.MaxSize = most << 20
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, peak := held(), uint64(0)
	faults, err := b.PutRootWith("acme", Root{Verifier: root}, func(take func(trust.Subject, []byte)) error {
		for i := range records {
			take(acmeKey(fmt.Sprintf("%sacme/app-%d", prefix, i)).Subject, []byte{1})
			peak = max(peak, held())
		}
		return nil
	}, never)
	if err != nil {
		t.Fatal(err)
	}
	if got := (peak - before) >> 20; got > 2*most {
		t.Errorf("%d MiB were held of records, where %d may be", got, most)
	}
	if len(faults) != records-most || b.Load().size != most<<20 {
		t.Errorf("%d repositories do not fit and %d bytes are held", len(faults), b.Load().size)
	}
}

// unsigned is evidence with signatures that do not count.
type unsigned struct{ weighty }

func (*unsigned) Signed() bool { return false }

// Pods name images with many signatures that do not count. These fill a part of the memory: signed
// images have the rest, and a signature that is removed is noticed all the same.
func TestThreatSignaturesThatDoNotCountLeaveRoom(t *testing.T) {
	removed := false
	root := &scripted{}
	root.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		switch {
		case strings.Contains(repository, "made-up"):
			return &unsigned{weighty{size: 10}}, nil
		case removed:
			return &unsigned{weighty{size: 40}}, nil
		}
		return &weighty{size: 40}, nil
	}
	b := newBench(root)
	b.options.MaxSize = 100
	for i, fits := range []bool{true, true, false} {
		err := b.Ensure(from(t.Context(), "evil"), madeUp("evil", i))
		if got := trust.AsFault(err, "").Reason; fits && err != nil || !fits && got != v1alpha1.ReasonTooLarge {
			t.Errorf("made-up image %d: got %v, want it to fit %t", i, err, fits)
		}
	}
	signed := []trust.Key{key(repository("acme/a")), key(repository("acme/b"))}
	for _, k := range signed {
		if err := b.Ensure(from(t.Context(), "shop"), k); err != nil {
			t.Errorf("%s: got %v, want it to fit", k.Subject, err)
		}
	}
	if got := b.Load(); got.size != 100 || got.unsigned != 20 {
		t.Errorf("got %d bytes in all and %d of unsigned images, want 100 and 20", got.size, got.unsigned)
	}

	removed = true
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), signed[0], b.clock.Now()); err != nil {
		t.Errorf("a removed signature: got %v, want it noticed", err)
	}
	if e, _, err := b.Load().Evidence(signed[0]); err != nil || e.Signed() {
		t.Errorf("a removed signature: got evidence %v, %v, want that without it", e, err)
	}

	b.clock.Step(forgetAfter + time.Second)
	b.prune()
	if err := b.Ensure(from(t.Context(), "lab"), madeUp("lab", 0)); err != nil {
		t.Errorf("after the others were forgotten: got %v, want it to fit", err)
	}
	if got := b.Load(); got.size != 50 || got.unsigned != 10 {
		t.Errorf("got %d bytes in all and %d of unsigned images, want 50 and 10", got.size, got.unsigned)
	}
	b.DropRoot("acme")
	if got := b.Load(); got.size != 0 || got.unsigned != 0 {
		t.Errorf("got %d and %d bytes of nothing", got.size, got.unsigned)
	}
}
