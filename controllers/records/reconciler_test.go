package records

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/trust"
)

// edition is evidence with a number. Its record has size bytes of data.
type edition struct {
	trust.Unsigned
	number, size int
}

func (*edition) Signed() bool { return true }

// press is a trust root whose server has the edition that a test sets, or no signatures.
type press struct {
	current atomic.Pointer[edition]
	refuses bool        // every record, as a root does that does not pin its key
	ends    atomic.Bool // every fetch ends what is held, as a refusal of pull secrets does
}

func (*press) Probe(context.Context, string) error { return nil }

func (*press) Host(trust.Subject) string { return "notary.example.com" }

func (p *press) Fetch(_ context.Context, _ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if p.ends.Load() {
		return nil, &trust.Fault{Reason: v1alpha1.ReasonUnauthorized, Err: errors.New("refused"), Ends: true}
	}
	e := p.current.Load()
	if e == nil {
		return trust.Unsigned{}, nil
	}
	if have, ok := held.(*edition); ok && have.number > e.number {
		return nil, trust.NewFault(v1alpha1.ReasonRollback, "edition %d was seen before", have.number)
	}
	return e, nil
}

func (*press) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) { return held, nil }

func (*press) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Name()}
}

func (*press) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	e, ok := held[shopKey.Subject].(*edition)
	if !ok {
		return nil, nil
	}
	data := make([]byte, e.size)
	binary.BigEndian.PutUint64(data, uint64(e.number))
	return data, nil
}

func (p *press) Unpack(repository trust.Subject, data []byte,
	held map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	if p.refuses {
		return nil, trust.NewFault(v1alpha1.ReasonRootNotPinned, "not pinned")
	}
	e := &edition{number: int(binary.BigEndian.Uint64(data)), size: len(data)}
	if have, ok := held[repository].(*edition); ok && have.number >= e.number {
		return held, nil
	}
	return map[trust.Subject]trust.Evidence{repository: e}, nil
}

// uncached stands for the Cache, without its delay: it reads from the API server, which has no
// index fieldHead.
type uncached struct{ client.Reader }

func (u uncached) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(options)
	fields := o.FieldSelector
	o.FieldSelector = nil
	if err := u.Reader.List(ctx, list, o); err != nil || fields == nil {
		return err
	}
	heads, ok := list.(*metav1.PartialObjectMetadataList)
	name, exact := fields.RequiresExactMatch(fieldHead)
	if !ok || !exact {
		return fmt.Errorf("got a list %T by %s, want metadata by %s", list, fields, fieldHead)
	}
	heads.Items = slices.DeleteFunc(heads.Items, func(m metav1.PartialObjectMetadata) bool {
		return !slices.Contains(headName(&m), name)
	})
	return nil
}

// replica is the reconciler of one manager, with its trust root.
type replica struct {
	*Reconciler
	press press
}

var shopKey = trust.Key{Root: "acme", Subject: trust.Subject{Repository: "registry.example.com/shop/app"}}

// newReplica returns a replica that has just started: it has published the trust root.
func newReplica(t *testing.T, c client.Client, clock *clocktesting.FakeClock, tr *v1alpha1.TrustRoot, epoch string,
	leads bool) *replica {
	t.Helper()
	r := &replica{Reconciler: &Reconciler{
		Client: c, Live: c, Heads: uncached{c}, Namespace: "default", Changes: &Changes{},
		Store: store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		Clock: clock, KeepUnused: 30 * 24 * time.Hour,
	}}
	elected := make(chan struct{})
	if leads {
		close(elected)
	}
	r.Elected = elected
	r.Tracker = store.NewTracker(r.Store, clock, func(string) {})
	r.publish(t, tr, epoch)
	return r
}

func (r *replica) publish(t *testing.T, tr *v1alpha1.TrustRoot, epoch string) {
	t.Helper()
	next := store.Root{Verifier: &r.press, UID: tr.UID, Epoch: epoch}
	published := r.Store.Load().Root("acme")
	if published != nil && published.UID != tr.UID {
		published = nil
	}
	saved := r.Saved(t.Context(), tr, published, &next)
	faults, err := r.Store.PutRootWith("acme", next, saved, func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	r.Published(t.Context(), tr, faults)
	r.Tracker.Reset("acme", time.Hour)
}

// fetch makes the server offer an edition, nil for no signatures, and fetches it.
func (r *replica) fetch(t *testing.T, e *edition) error {
	t.Helper()
	r.press.current.Store(e)
	return r.Tracker.Renew(t.Context(), shopKey, r.Clock.Now())
}

func (r *replica) reconcile(t *testing.T) {
	t.Helper()
	if _, err := r.Reconcile(t.Context(), shopKey); err != nil {
		t.Fatal(err)
	}
}

// holds checks the number of the edition in the store; 0: there is none.
func (r *replica) holds(t *testing.T, number int) {
	t.Helper()
	got := 0
	if e, ok := r.Store.Load().Verified(shopKey)[shopKey.Subject].(*edition); ok {
		got = e.number
	}
	if got != number {
		t.Errorf("the store has edition %d, want %d", got, number)
	}
}

// TestRecords keeps the record of one repository on a real API server. Several replicas do that,
// one after the other.
func TestRecords(t *testing.T) {
	tr := &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
			Server: "https://127.0.0.1:1",
			Root: v1alpha1.NotaryRoot{
				KeyIDs: []v1alpha1.KeyID{"84ca6e4416416d78c4597e754f38517bea95ab427e5f95871f90d460573071fc"},
			},
		}},
	}
	s := &recordScene{
		Client: controlplane.Run(t, tr), tr: tr,
		clock: clocktesting.NewFakeClock(time.Now().Truncate(24 * time.Hour).Add(12 * time.Hour)),
	}
	t.Run("written by the leader alone", s.testWritten)
	t.Run("read at the start, and when it changes", s.testRead)
	t.Run("larger than one ConfigMap", s.testParts)
	t.Run("written by another replica meanwhile", s.testConflict)
	t.Run("deleted", s.testDeleted)
	t.Run("damaged", s.testDamaged)
	t.Run("parts damaged", s.testDamagedParts)
	t.Run("orphaned parts", s.testOrphanedParts)
	t.Run("written while it is read", s.testWrittenWhileRead)
	t.Run("written before the trust root is published", s.testWrittenBeforePublished)
	t.Run("refused until the trust root is edited", s.testRefused)
	t.Run("paced and bounded", s.testBounds)
	t.Run("flushed before the end", s.testFinalFlush)
	t.Run("versions forgotten", s.testForgotten)
	t.Run("used and unused", s.testUnused)
	t.Run("ended by a refusal", s.testEnded)
	t.Run("without signatures", s.testUnsigned)
}

type recordScene struct {
	client.Client
	tr    *v1alpha1.TrustRoot
	clock *clocktesting.FakeClock
	// last is the number of the edition that was written last.
	last int
}

func (s *recordScene) replica(t *testing.T, leads bool) *replica {
	t.Helper()
	return newReplica(t, s.Client, s.clock, s.tr, "", leads)
}

// all returns the ConfigMaps of records.
func (s *recordScene) all(t *testing.T) []corev1.ConfigMap {
	t.Helper()
	list := &corev1.ConfigMapList{}
	if err := s.List(t.Context(), list, client.InNamespace("default"),
		client.HasLabels{recordmap.LabelKind}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func (s *recordScene) head(t *testing.T) *corev1.ConfigMap {
	t.Helper()
	m := &corev1.ConfigMap{}
	if err := s.Get(t.Context(), client.ObjectKey{
		Namespace: "default", Name: recordmap.Name(s.tr.UID, shopKey.Subject),
	},
		m); err != nil {
		t.Fatal(err)
	}
	return m
}

// next makes a leader fetch and write the next edition.
func (s *recordScene) next(t *testing.T, leader *replica, size int) {
	t.Helper()
	s.last++
	s.clock.Step(time.Minute)
	if err := leader.fetch(t, &edition{number: s.last, size: size}); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
}

func (s *recordScene) testWritten(t *testing.T) {
	follower, leader := s.replica(t, false), s.replica(t, true)
	if err := follower.fetch(t, &edition{number: 1, size: 100}); err != nil {
		t.Fatal(err)
	}
	follower.reconcile(t)
	if all := s.all(t); len(all) > 0 {
		t.Fatalf("a replica that does not lead wrote %d records, want none", len(all))
	}
	s.next(t, leader, 100)
	first := s.head(t)
	leader.reconcile(t)
	s.clock.Step(time.Hour)
	leader.reconcile(t)
	if again := s.head(t); again.ResourceVersion != first.ResourceVersion {
		t.Error("an unchanged record was written again")
	}
	s.next(t, leader, 100)
	second := s.head(t)
	for range 5 { // within the pause
		s.last++
		if err := leader.fetch(t, &edition{number: s.last, size: 100}); err != nil {
			t.Fatal(err)
		}
		leader.reconcile(t)
		s.clock.Step(time.Millisecond)
	}
	if now := s.head(t); now.ResourceVersion != second.ResourceVersion {
		t.Error("the record was written within the pause")
	}
	s.clock.Step(writePause)
	leader.reconcile(t)
	s.replica(t, false).holds(t, s.last)
	s.clock.Step(time.Hour)
	follower.reconcile(t)
	if err := follower.fetch(t, &edition{number: s.last + 1, size: 100}); err != nil {
		t.Fatal(err)
	}
	third := s.head(t)
	follower.reconcile(t)
	if now := s.head(t); now.ResourceVersion != third.ResourceVersion {
		t.Error("a replica that does not lead wrote over a record")
	}
}

func (s *recordScene) testRead(t *testing.T) {
	leader, follower := s.replica(t, true), s.replica(t, false)
	s.next(t, leader, 100)
	follower.holds(t, s.last-1)
	follower.reconcile(t)
	follower.holds(t, s.last)
	restarted := s.replica(t, false)
	restarted.holds(t, s.last)
	if err := restarted.fetch(t, &edition{number: s.last - 1, size: 100}); err == nil {
		t.Error("an older edition was accepted after a restart, want a rollback fault")
	}
	restarted.holds(t, s.last)
}

func (s *recordScene) testParts(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 2500<<10)
	if n := len(s.all(t)); n != 3 {
		t.Errorf("2.5 MB are in %d ConfigMaps, want 3", n)
	}
	s.replica(t, false).holds(t, s.last)
	s.next(t, leader, 1500<<10)
	if n := len(s.all(t)); n != 2 {
		t.Errorf("1.5 MB are in %d ConfigMaps, want 2: the old parts must be deleted", n)
	}
	s.replica(t, false).holds(t, s.last)
	s.next(t, leader, 100)
	if n := len(s.all(t)); n != 1 {
		t.Errorf("100 bytes are in %d ConfigMaps, want 1", n)
	}
}

// stale is a client that reads an old state of a record.
type stale struct {
	client.Client
	then *corev1.ConfigMap
}

func (s stale) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	m, ok := into.(*corev1.ConfigMap)
	if !ok || s.then == nil {
		return apierrors.NewNotFound(corev1.Resource("configmaps"), "")
	}
	s.then.DeepCopyInto(m)
	return nil
}

// testConflict has two replicas that both believe that they lead. The one with a stale cache must
// not write an older record over a newer one.
func (s *recordScene) testConflict(t *testing.T) {
	behind := s.replica(t, true)
	behind.Client = stale{s.Client, s.head(t)}
	s.next(t, s.replica(t, true), 100)
	written := s.head(t)
	s.clock.Step(time.Minute)
	if err := behind.fetch(t, &edition{number: s.last - 1, size: 200}); err != nil {
		t.Fatal(err)
	}
	behind.reconcile(t)
	if now := s.head(t); now.ResourceVersion != written.ResourceVersion {
		t.Error("a replica with a stale cache wrote over a record that it had not restored")
	}
	behind.Client = s.Client
	s.clock.Step(time.Minute)
	behind.reconcile(t)
	behind.holds(t, s.last)
}

func (s *recordScene) testDeleted(t *testing.T) {
	leader := s.replica(t, true)
	if err := s.Delete(t.Context(), s.head(t)); err != nil {
		t.Fatal(err)
	}
	s.clock.Step(time.Minute)
	leader.reconcile(t)
	leader.holds(t, s.last)
	s.replica(t, false).holds(t, s.last)
}

func (s *recordScene) testDamaged(t *testing.T) {
	leader := s.replica(t, true)
	for name, spoil := range map[string]func(*corev1.ConfigMap){
		"data": func(m *corev1.ConfigMap) {
			m.BinaryData = map[string][]byte{"metadata.gz": bytes.Repeat([]byte{9}, 100)}
		},
		"digest":      func(m *corev1.ConfigMap) { m.Annotations["countersign.dev/digest"] = "00" },
		"annotations": func(m *corev1.ConfigMap) { m.Annotations = nil },
		"trust root":  func(m *corev1.ConfigMap) { m.Annotations["countersign.dev/trust-root"] = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			m := s.head(t)
			spoil(m)
			if err := s.Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			s.replica(t, true).holds(t, 0)
			leader.holds(t, s.last)
			s.clock.Step(time.Minute)
			leader.reconcile(t)
			s.replica(t, false).holds(t, s.last)
			written := s.head(t)
			s.clock.Step(time.Minute)
			leader.reconcile(t)
			if now := s.head(t); now.ResourceVersion != written.ResourceVersion {
				t.Error("a repaired record was written again")
			}
		})
	}
}

// testDamagedParts deletes, and replaces, a part that a running leader has written. The head stays
// as it was.
func (s *recordScene) testDamagedParts(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 1500<<10)
	for name, spoil := range map[string]func(*corev1.ConfigMap) error{
		"deleted": func(m *corev1.ConfigMap) error { return s.Delete(t.Context(), m) },
		"replaced": func(m *corev1.ConfigMap) error {
			m.BinaryData = map[string][]byte{"metadata.gz": bytes.Repeat([]byte{9}, 100)}
			return s.Update(t.Context(), m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := spoil(&s.parts(t)[0]); err != nil {
				t.Fatal(err)
			}
			s.replica(t, false).holds(t, 0)
			s.clock.Step(time.Minute)
			leader.reconcile(t)
			s.replica(t, false).holds(t, s.last)
		})
	}
}

func (s *recordScene) parts(t *testing.T) []corev1.ConfigMap {
	t.Helper()
	return slices.DeleteFunc(s.all(t), func(m corev1.ConfigMap) bool {
		return m.Labels[recordmap.LabelKind] != recordmap.KindPart
	})
}

// testOrphanedParts has parts whose leader ended before it wrote their head.
func (s *recordScene) testOrphanedParts(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 1500<<10)
	data, err := (*press)(nil).Pack(map[trust.Subject]trust.Evidence{
		shopKey.Subject: &edition{number: s.last + 1, size: 2500 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, parts, err := recordmap.Encode("default",
		recordmap.Head{Root: "acme", UID: s.tr.UID, Repository: shopKey.Repository}, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if err := s.Create(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.SetTime(time.Now())
	leader.reconcile(t)
	if n := len(s.parts(t)); n != 3 {
		t.Errorf("there are %d parts, want 3: young parts may be waiting for their head", n)
	}
	s.clock.SetTime(time.Now().Add(mercy + time.Minute))
	leader.reconcile(t)
	if n := len(s.parts(t)); n != 1 {
		t.Errorf("there are %d parts, want 1: no replica will write the head of the others", n)
	}
	s.replica(t, false).holds(t, s.last)
}

// meanwhile is a client that calls do before its first Get.
type meanwhile struct {
	client.Client
	do func()
}

func (m *meanwhile) Get(ctx context.Context, key client.ObjectKey, into client.Object,
	options ...client.GetOption) error {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.Client.Get(ctx, key, into, options...)
}

// failing is a client that cannot read the object of a name.
type failing struct {
	client.Client
	name string
}

func (f failing) Get(ctx context.Context, key client.ObjectKey, into client.Object,
	options ...client.GetOption) error {
	if key.Name == f.name {
		return errors.New("connection refused")
	}
	return f.Client.Get(ctx, key, into, options...)
}

func (s *recordScene) testWrittenWhileRead(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 1500<<10)
	starting := &replica{
		Reconciler: &Reconciler{
			Client: s.Client, Heads: s.Client, Live: &meanwhile{s.Client, func() { s.next(t, leader, 1500<<10) }},
			Namespace: "default",
		},
	}
	taken := 0
	if err := starting.restoreAll(t.Context(), s.tr, "", func(trust.Subject, []byte) { taken++ }); err != nil {
		t.Fatal(err)
	}
	if taken != 1 {
		t.Errorf("%d records were restored, want 1: one was written while it was read", taken)
	}
}

// testWrittenBeforePublished writes a record between Saved and Published: its event comes too early
// to be handled.
func (s *recordScene) testWrittenBeforePublished(t *testing.T) {
	r := s.replica(t, false)
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[trust.Key]())
	defer queue.ShutDown()
	if err := r.Changes.trigger.Source().Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	tagged := shopKey
	tagged.Tag = "v1"
	r.Changes.Notify(tagged) // the same record, so the same request
	r.Published(t.Context(), s.tr, nil)
	if queue.Len() != 1 {
		t.Fatalf("%d records are enqueued, want 1", queue.Len())
	}
	if got, _ := queue.Get(); got != shopKey {
		t.Errorf("%v is enqueued, want %v", got, shopKey)
	}
}

// testRefused starts a leader while the trust root pins a wrong key. Once that is corrected the
// versions in the record count.
func (s *recordScene) testRefused(t *testing.T) {
	s.next(t, s.replica(t, true), 100)
	leader := newReplica(t, s.Client, s.clock,
		&v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "another"}}, "", true)
	leader.press.refuses = true
	leader.publish(t, s.tr, "")
	leader.holds(t, 0)
	if err := leader.fetch(t, nil); err != nil { // the server hides the signatures
		t.Fatal(err)
	}
	s.clock.Step(time.Minute)
	leader.reconcile(t)
	s.head(t)
	if len(leader.refused("acme")) != 1 || len(leader.refused("other")) != 0 {
		t.Error("the refused record is not restored again when the trust root is edited")
	}
	leader.press.refuses = false
	large := trust.Key{Root: "acme", Subject: trust.Subject{Repository: "registry.example.com/shop/large"}}
	leader.update(large, func(r *state) { r.refused = true })
	leader.Live = failing{s.Client, recordmap.Name(s.tr.UID, large.Subject)}
	published := leader.Store.Load().Root("acme")
	if err := leader.Saved(t.Context(), s.tr, published, published)(func(trust.Subject, []byte) {}); err == nil {
		t.Error("Saved returned no error, want that of the API server")
	}
	if got := leader.refused("acme"); len(got) != 2 {
		t.Errorf("after an error %v count as refused, want both records", got)
	}
	leader.drop(large)
	leader.Live = s.Client
	leader.publish(t, s.tr, "")
	leader.holds(t, s.last)
	if len(leader.refused("acme")) != 0 {
		t.Error("the record still counts as refused")
	}
	if err := leader.fetch(t, &edition{number: s.last - 1, size: 100}); err == nil {
		t.Error("an older edition was accepted after the trust root was corrected, want a rollback fault")
	}
}

// testBounds has a signing server that publishes all the time.
func (s *recordScene) testBounds(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 100)
	written := s.head(t)
	unchanged := func(why string) {
		t.Helper()
		if now := s.head(t); now.ResourceVersion != written.ResourceVersion {
			t.Error("the record was written " + why)
		}
	}
	other := trust.Key{Root: "acme", Subject: trust.Subject{Repository: "registry.example.com/shop/large"}}
	leader.update(other, func(r *state) { r.size = maxRecords })
	s.next(t, leader, 100)
	unchanged("beyond the bound on all records")
	leader.drop(other)
	leader.pace = nil
	leader.limiter().AllowN(time.Now(), writeBurst)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s.clock.Step(time.Minute)
	if err := leader.fetch(t, &edition{number: s.last, size: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.Reconcile(short, shopKey); err == nil {
		t.Error("Reconcile returned no error, want one: it must wait for the rate limiter")
	}
	unchanged("faster than the rate limiter permits")
	leader.pace = nil
	leader.reconcile(t)
	s.replica(t, false).holds(t, s.last)
	s.next(t, leader, 100)
}

// testFinalFlush ends a leader that has verified a newer edition within the pause after a write.
func (s *recordScene) testFinalFlush(t *testing.T) {
	leader, follower := s.replica(t, true), s.replica(t, false)
	s.next(t, leader, 100)
	s.last++
	s.clock.Step(time.Millisecond)
	if err := leader.fetch(t, &edition{number: s.last, size: 100}); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
	s.replica(t, false).holds(t, s.last-1) // it is paused
	if err := follower.fetch(t, &edition{number: s.last + 1, size: 100}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*replica{leader, follower} {
		ctx, end := context.WithCancel(t.Context())
		end()
		if err := (finalFlush{r.Reconciler}).Start(ctx); err != nil {
			t.Error(err)
		}
	}
	s.replica(t, false).holds(t, s.last)
}

func (s *recordScene) testForgotten(t *testing.T) {
	leader, follower := s.replica(t, true), s.replica(t, false)
	for _, r := range []*replica{leader, follower} {
		r.publish(t, s.tr, "restored")
	}
	follower.reconcile(t)
	s.clock.Step(time.Minute)
	if err := leader.fetch(t, &edition{number: s.last - 1, size: 100}); err != nil {
		t.Fatalf("an older edition was refused after the versions were forgotten: %v", err)
	}
	leader.reconcile(t)
	follower.reconcile(t)
	leader.holds(t, s.last-1)
	follower.holds(t, s.last-1)
	// The same edition is verified under the next epoch. The follower must restore it again, for
	// its own evidence is of the earlier epoch.
	for _, r := range []*replica{leader, follower} {
		r.publish(t, s.tr, "restored once more")
	}
	s.clock.Step(time.Minute)
	if err := leader.fetch(t, &edition{number: s.last - 1, size: 100}); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
	follower.reconcile(t)
	if err := follower.fetch(t, &edition{number: s.last - 2, size: 100}); err == nil {
		t.Error("an older edition was accepted within the new epoch, want a rollback fault")
	}
	newReplica(t, s.Client, s.clock, s.tr, "restored once more", false).holds(t, s.last-1)
	newReplica(t, s.Client, s.clock, s.tr, "restored again", false).holds(t, 0)
	leader.publish(t, s.tr, "")
	s.next(t, leader, 100)
}

func (s *recordScene) testUnused(t *testing.T) {
	day := 24 * time.Hour
	leader := s.replica(t, true)
	leader.reconcile(t)
	written := s.head(t)
	// far from midnight, where one day of use becomes another
	s.clock.SetTime(s.clock.Now().Add(29 * day).Truncate(day).Add(day / 2))
	leader.reconcile(t)
	if now := s.head(t); now.ResourceVersion != written.ResourceVersion {
		t.Error("an unused record was written")
	}
	if _, _, err := leader.Store.Load().Evidence(shopKey); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
	used := s.head(t)
	if used.ResourceVersion == written.ResourceVersion {
		t.Error("the last use was not recorded")
	}
	s.clock.Step(time.Minute)
	if _, _, err := leader.Store.Load().Evidence(shopKey); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
	if now := s.head(t); now.ResourceVersion != used.ResourceVersion {
		t.Error("the last use was recorded twice within a day")
	}
	s.clock.Step(32 * day)
	started := s.replica(t, true)
	started.reconcile(t)
	s.head(t) // it must still exist: a new leader may not know yet what runs
	s.clock.Step(mercy)
	started.reconcile(t)
	started.holds(t, 0)
	if all := s.all(t); len(all) > 0 {
		t.Errorf("%d ConfigMaps are left after 32 days without use, want none", len(all))
	}
}

func (s *recordScene) testUnsigned(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 100)
	leader.publish(t, s.tr, "deleted on the server")
	s.clock.Step(time.Minute)
	if err := leader.fetch(t, nil); err != nil {
		t.Fatal(err)
	}
	leader.reconcile(t)
	if all := s.all(t); len(all) > 0 {
		t.Errorf("%d ConfigMaps are left of a repository without signatures, want none", len(all))
	}
}

// A record does not revive after a restart what a fault has ended.
func (s *recordScene) testEnded(t *testing.T) {
	leader := s.replica(t, true)
	s.next(t, leader, 100)
	s.head(t)
	s.clock.Step(time.Minute)
	leader.press.ends.Store(true)
	if err := leader.fetch(t, nil); err == nil {
		t.Fatal("the fetch succeeded, want it refused")
	}
	leader.reconcile(t)
	if all := s.all(t); len(all) > 0 {
		t.Errorf("%d ConfigMaps are left of a repository whose evidence has ended, want none", len(all))
	}
	s.replica(t, false).holds(t, 0)
	leader.press.ends.Store(false)
	s.next(t, leader, 100)
	s.replica(t, false).holds(t, s.last)
}
