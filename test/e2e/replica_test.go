package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/webhooks"
)

// auditPolicy makes the API server log the writes of managers, except leases and events.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}, {group: events.k8s.io, resources: [events]}, {group: "", resources: [events]}]
- level: Metadata
  users: ["system:serviceaccount:countersign-system:countersign-manager"]
  verbs: [create, update, patch, delete]
`

// shutdownDelay is long enough for the balancer to notice on a busy machine that a replica is not
// ready. At half of it a replica stops accepting connections.
const shutdownDelay = 5 * time.Second

// replicas is a bed with several managers behind one URL.
type replicas struct {
	*bed
	all    *testing.T // the managers run until it ends
	dir    string
	front  *operator.Balancer
	binary string
	count  int
	alive  []*replica
	load   *load
	// excused is true while a creation may fail because no manager responds.
	excused atomic.Bool
	// signed is a repository that ci and qa have signed, half one that only ci has signed. switched
	// is under a policy that the tests edit.
	signed, half, switched string
	// digest is the signed digest, and pinned the image of switched with its digest.
	digest, pinned string
}

// replica is a manager with a name in the API server's audit log.
type replica struct {
	*operator.Manager
	name string
	link *kubeserver.Link
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{all: t, dir: t.TempDir(), front: operator.RunBalancer(t)}
	must(t, os.WriteFile(filepath.Join(r.dir, "audit.yaml"), []byte(auditPolicy), 0o600))
	binary, err := operator.Build(t.Context(), r.dir, true)
	must(t, err)
	r.binary = binary
	options := kubeserver.Options{APIServerArgs: []string{
		"--audit-policy-file", filepath.Join(r.dir, "audit.yaml"), "--audit-log-path",
		filepath.Join(r.dir, "audit.log"),
	}}
	r.bed = newBedWith(t, options, func(b *bed) *operator.Manager {
		r.bed = b
		for range 3 {
			r.start(t)
		}
		return r.alive[0].Manager
	})
	return r
}

// start runs another replica under its own name: client-go sends the program's name to the API
// server.
func (r *replicas) start(t *testing.T) {
	t.Helper()
	r.count++
	m := &replica{name: fmt.Sprintf("countersign-%d", r.count), link: kubeserver.RunLink(r.all, r.kube)}
	program := filepath.Join(r.dir, m.name)
	must(t, os.Symlink(r.binary, program))
	m.Manager = operator.RunWith(r.all, r.kube, operator.Options{
		MayMissRights: true, // a test restarts the API server
		Binary:        program, APIServer: m.link.URL,
		Args: []string{"--webhook-url=" + r.front.URL, "--shutdown-delay=" + shutdownDelay.String()},
	})
	r.front.Add(m.Manager)
	r.alive = append(r.alive, m)
}

// gone removes a replica from those that are alive.
func (r *replicas) gone(m *replica) {
	r.alive = slices.DeleteFunc(r.alive, func(other *replica) bool { return other == m })
}

// leader waits for a replica whose metrics say that it leads.
func (r *replicas) leader(t *testing.T) (leader *replica) {
	t.Helper()
	poll.Await(t, "a leader", func() error {
		for _, m := range r.alive {
			text, err := get(t.Context(), m.MetricsURL)
			if err != nil {
				return err
			}
			if strings.Contains(text, `leader_election_master_status{name="countersign.countersign.dev"} 1`) {
				leader = m
				return nil
			}
		}
		return errors.New("got no leader")
	})
	return leader
}

// get returns the body of a GET request's response.
func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// decides waits until a replica admits or denies the image under the edited policy.
func (r *replicas) decides(t *testing.T, m *replica, want bool) {
	t.Helper()
	poll.Await(t, fmt.Sprintf("%s to admit the image: %t", m.name, want), func() error {
		v, err := review(t.Context(), m.Manager, webhooks.ValidatePath, r.pinned)
		if err == nil && v.Allowed != want {
			err = fmt.Errorf("got %+v", v)
		}
		return err
	})
}

// edit makes the policy require ci and qa, or only ci. It returns the time when the API server had
// stored that.
func (r *replicas) edit(t *testing.T, qa bool) time.Time {
	t.Helper()
	roles := []v1alpha1.RoleName{"ci"}
	if qa {
		roles = append(roles, "qa")
	}
	poll.Await(t, "an edit", func() error {
		p := &v1alpha1.ImagePolicy{}
		if err := r.Get(t.Context(), client.ObjectKey{Name: "switched"}, p); err != nil {
			return err
		}
		p.Spec.RequiredRoles = r.policy("", r.switched, "acme-notary", roles...).Spec.RequiredRoles
		return r.Update(t.Context(), p)
	})
	return time.Now()
}

// statusRight waits until the status is about the newest edit. Only a leader writes it.
func (r *replicas) statusRight(t *testing.T, what string, since time.Time) {
	t.Helper()
	r.ready(t, &v1alpha1.ImagePolicy{}, "switched", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	t.Logf("status right again %s after %s", time.Since(since).Round(10*time.Millisecond), what)
}

// oneWriterAtATime reads the audit log. After another replica has become the writer, a replica must
// never write again.
func (r *replicas) oneWriterAtATime(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	must(t, err)
	var writers []string
	writes := 0
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the API server is still writing the line
		}
		var event struct {
			UserAgent string `json:"userAgent"`
			Verb      string `json:"verb"`
			URI       string `json:"requestURI"`
		}
		must(t, json.Unmarshal(line, &event))
		name, _, _ := strings.Cut(event.UserAgent, "/")
		writes++
		switch {
		case len(writers) > 0 && writers[len(writers)-1] == name:
		case slices.Contains(writers, name):
			t.Errorf("got %s %s from %s after %s became writers, want no write", event.Verb, event.URI, name,
				writers[slices.Index(writers, name)+1:])
		default:
			writers = append(writers, name)
		}
	}
	t.Logf("%d writes, by %s one after the other", writes, writers)
	if len(writers) < 4 {
		t.Errorf("got the writers %s, want at least 4", writers)
	}
}
