package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/test/handmade"
)

const (
	// mostMemory bounds the peak memory of a replica, in MiB.
	mostMemory = 400
	// signersHost is a host with a hostile signer of one role. serversHost is a host whose signing
	// server is hostile and has no key.
	signersHost, serversHost = "signer.example.com", "server.example.com"
)

// memories is a bed with three replicas. Each has the memory limit of the manifest's container.
type memories struct {
	*bed
	all      *testing.T
	binary   string
	front    *operator.Balancer
	replicas []*operator.Manager
	server   *hostile // has no key
	signers  *hostile // serves the files of a hostile signer
	keys     *handmade.Signers
	known    string // a repository of the real Notary server
}

// TestThreatHostileMemory checks the memory of replicas while they start, refresh and restart, with
// a hostile server, a hostile signer and hostile records at the same time.
func TestThreatHostileMemory(t *testing.T) {
	t.Parallel()
	binary, err := operator.Build(t.Context(), t.TempDir(), false) // the race detector needs memory itself
	must(t, err)
	m := &memories{
		all: t, binary: binary, front: operator.RunBalancer(t), keys: handmade.NewSigners(t, "ci", "qa"),
		server: newHostile(t), signers: newHostile(t),
	}
	m.bed = newBedWith(t, kubeserver.Options{}, func(b *bed) *operator.Manager {
		m.bed = b
		m.start(t)
		return m.replicas[0]
	})
	m.known = m.repository(t, "ci", "qa")
	m.sign(t, m.known, "v1", 1, "ci", "qa")
	m.server.offerUnpinned(t)
	m.runEverywhere(t)
	m.publishSigned(t, 1, func(int) handmade.Object { return nil })
	m.trust(t, "hostile-signer", signersHost, m.signers, m.keys.Root.Canonical)
	for i := range bulks {
		m.admitted(t, pod(production, signedBy(i)+":v1"))
	}

	defer m.within(t, "in the end") // also after a timeout
	load := m.load(t, m.known, nil)
	m.trust(t, "hostile-server", serversHost, m.server, handmade.NewKey(t).Canonical)
	m.publishSigned(t, 2, m.bulk)
	m.refreshed(t)
	m.failing(t, "hostile-server", hostiles)
	m.plantRecords(t)
	load.more(t)
	load.stop(t)
	m.within(t, "started and refreshed")
	m.decided(t)

	for _, r := range m.replicas {
		must(t, r.Stop())
	}
	m.replicas = nil
	m.start(t)
	load = m.load(t, m.known, nil)
	m.failing(t, "hostile-server", hostiles)
	for range 5 {
		load.more(t)
	}
	load.stop(t)
	m.decided(t)
}

const (
	// hostiles is the number of the hostile server's repositories that Pods use, and bulks that of
	// the hostile signer.
	hostiles, bulks = 24, 6
	// fileSize is a little less than the largest file of a delegation.
	fileSize = 8<<20 - 64<<10
)

func signedBy(i int) string { return fmt.Sprintf("%s/acme/app-%d", signersHost, i) }

// start runs three replicas.
func (m *memories) start(t *testing.T) {
	t.Helper()
	for range 3 {
		r := operator.RunWith(m.all, m.kube, operator.Options{
			Binary: m.binary, Args: []string{"--webhook-url=" + m.front.URL},
			Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", containerLimit(m.all)/10*9)},
		})
		m.front.Add(r)
		m.replicas = append(m.replicas, r)
	}
}

// runEverywhere creates a Pod of every hostile repository, before a policy covers them.
func (m *memories) runEverywhere(t *testing.T) {
	t.Helper()
	for i := range hostiles {
		m.admitted(t, pod(production, fmt.Sprintf("%s/acme/app-%d:v1", serversHost, i)))
	}
}

// trust creates a trust root of a hostile server, and a policy for the images of a host.
func (m *memories) trust(t *testing.T, name, host string, server *hostile, pin string) {
	t.Helper()
	root := m.trustRoot(name)
	root.Spec.Notary.Server, root.Spec.Notary.CABundle = server.url, v1alpha1.PEMBundle(server.ca)
	root.Spec.Notary.Root.KeyIDs = []v1alpha1.KeyID{v1alpha1.KeyID(pin)}
	m.create(t, root)
	m.create(t, m.policy(name, host+"/**", name, "ci", "qa"))
	m.ready(t, &v1alpha1.ImagePolicy{}, name, metav1.ConditionTrue, v1alpha1.ReasonInForce)
}

// publishSigned publishes a version of every repository of the hostile signer, who signs as qa.
func (m *memories) publishSigned(t *testing.T, version int, bulk func(i int) handmade.Object) {
	t.Helper()
	for i := range bulks {
		files := map[string][]byte{}
		if version > 1 {
			root := handmade.Prefix(signedBy(i)) + "root.json"
			files[root] = m.signers.find(root)
		}
		m.keys.Publish(t, handmade.Repository{
			Name: signedBy(i), Version: version, Digests: map[string]string{"v1": fmt.Sprintf("%064x", i)},
			Extra: map[string]handmade.Object{"qa": bulk(i)},
		}, files)
		m.signers.publish(files)
	}
}

// bulk returns what the hostile signer adds to a file.
func (m *memories) bulk(i int) handmade.Object {
	switch i % 3 {
	case 0:
		return handmade.Object{"x": json.RawMessage("[" + strings.Repeat("0,", fileSize/2) + "0]")}
	case 1:
		object := `{"":0},` + strings.Repeat(`"`+strings.Repeat("a", 10)+`",`, 2)
		return handmade.Object{"x": json.RawMessage("[" + strings.Repeat(object, fileSize/len(object)*9/10) + "0]")}
	}
	targets := handmade.Object{}
	for n := range fileSize / 95 {
		hash := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%032d", n))
		targets[fmt.Sprintf("t%06d", n)] = handmade.Object{"length": 1, "hashes": handmade.Object{"sha256": hash}}
	}
	targets["v1"] = handmade.Object{
		"length": 1000,
		"hashes": handmade.Object{"sha256": base64.StdEncoding.EncodeToString(append(make([]byte, 31), byte(i)))},
	}
	return handmade.Object{"targets": targets}
}

// refreshed waits until every replica has fetched the newest files of the hostile signer.
func (m *memories) refreshed(t *testing.T) {
	t.Helper()
	for i := range bulks {
		path := m.newestFile(t, signedBy(i), "targets/qa")
		poll.Await(t, "replicas to fetch "+path, func() error {
			if n := m.signers.fetched(path); n < len(m.replicas) {
				return fmt.Errorf("got %d requests", n)
			}
			return nil
		})
	}
}

// newestFile returns the path of a file by the hash in the server's snapshot.
func (m *memories) newestFile(t *testing.T, repository, role string) string {
	t.Helper()
	var snapshot struct {
		Signed struct {
			Meta map[string]struct{ Hashes map[string][]byte }
		}
	}
	prefix := handmade.Prefix(repository)
	must(t, json.Unmarshal(m.signers.find(prefix+"snapshot.json"), &snapshot))
	return fmt.Sprintf("%s%s.%x.json", prefix, role, snapshot.Signed.Meta[role].Hashes["sha256"])
}

// failing waits until at least n repositories of a trust root have failed.
func (m *memories) failing(t *testing.T, name string, n int32) {
	t.Helper()
	poll.Await(t, fmt.Sprintf("%d failing repositories of %s", n, name), func() error {
		root := &v1alpha1.TrustRoot{}
		if err := m.Get(t.Context(), client.ObjectKey{Name: name}, root); err != nil {
			return err
		}
		if r := root.Status.Repositories; r == nil || r.Failing < n {
			return fmt.Errorf("got status %+v", r)
		}
		return nil
	})
}

// plantRecords creates records that are small and need much memory when they are read: compressed
// zeros, and headers with many empty entries.
func (m *memories) plantRecords(t *testing.T) {
	t.Helper()
	root := &v1alpha1.TrustRoot{}
	must(t, m.Get(t.Context(), client.ObjectKey{Name: "hostile-signer"}, root))
	zeros := []byte("[" + strings.Repeat("0,", fileSize/2) + "0]")
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	for range 2 {
		_, err := w.Write(zeros)
		must(t, err)
	}
	must(t, w.Close())
	for i := range 40 {
		repository := fmt.Sprintf("%s/planted/app-%d", signersHost, i)
		data := fmt.Appendf(nil,
			`{"format":"countersign notary 1","repository":%q,"names":["targets"],"sizes":[%d,%d]}`+"\n%s", repository,
			len(zeros), len(zeros), packed.Bytes())
		if i%2 == 1 {
			data = []byte(`{"seen":{"":{}` + strings.Repeat(`,"":{}`, 100_000) + "}}\n")
		}
		head, _, err := recordmap.Encode(operator.Namespace,
			recordmap.Head{Root: root.Name, UID: root.UID, Repository: repository, Used: time.Now()}, data)
		must(t, err)
		m.create(t, head)
	}
}

// within logs the memory of every replica, and checks that its peak is within the bound.
func (m *memories) within(t *testing.T, when string) {
	t.Helper()
	for i, r := range m.replicas {
		resident, peak, err := r.Memory()
		must(t, err)
		t.Logf("%s: replica %d has %.0f MiB, and had %.0f at its peak", when, i, resident, peak)
		if peak > mostMemory {
			t.Errorf("%s: got a peak of %.0f MiB in replica %d, want at most %d", when, peak, i, mostMemory)
		}
	}
}

// decided checks the verdict of every replica on each image.
func (m *memories) decided(t *testing.T) {
	t.Helper()
	for _, r := range m.replicas {
		for i := range bulks {
			image := fmt.Sprintf("%s:v1@sha256:%064x", signedBy(i), i)
			m.answers(t, r, image, true, 0)
		}
		m.answers(t, r, serversHost+"/acme/app-0:v1", false, http.StatusServiceUnavailable)
	}
}

func (m *memories) answers(t *testing.T, r *operator.Manager, image string, allowed bool, code int32) {
	t.Helper()
	poll.Await(t, "an answer about "+image, func() error {
		v, err := review(t.Context(), r, "/validate-workloads", image)
		if err == nil && (v.Allowed != allowed || v.Code != code && !allowed) {
			err = fmt.Errorf("got %+v, want allowed %t, code %d", v, allowed, code)
		}
		return err
	})
}

// containerLimit returns the memory limit of the manager's container in the manifest, in bytes.
func containerLimit(t *testing.T) int64 {
	t.Helper()
	root, err := build.ModuleRoot()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "config", "manager", "deployment.yaml"))
	must(t, err)
	found := regexp.MustCompile(`limits:\s+memory: (\d+)Gi`).FindSubmatch(text)
	if found == nil {
		must(t, errors.New("the manifest has no memory limit in GiB"))
	}
	gib, err := strconv.ParseInt(string(found[1]), 10, 64)
	must(t, err)
	return gib << 30
}
