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

// auditPolicy has the API server note what managers write, but for leases and events.
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

// shutdownDelay is for what the balancer needs to see that a replica leaves, with its turning away
// at half of it, on a busy machine.
const shutdownDelay = 5 * time.Second

type replicas struct {
	*bed
	all    *testing.T // managers last as long as it
	dir    string
	front  *operator.Balancer
	binary string
	count  int
	alive  []*replica
	load   *load
	// excused is true while a creation may fail for want of an answer.
	excused atomic.Bool
	// Repositories that ci and qa have signed, and ci alone; the last one is under a policy that is
	// edited.
	signed, half, switched string
	// The digest that all have signed, and the image of the policy that is edited, pinned as it is
	// after mutation.
	digest, pinned string
}

// replica is a manager that the API server's audit log knows by name.
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

// start runs another replica, with a name of its own: client-go tells the API server the program's.
func (r *replicas) start(t *testing.T) {
	t.Helper()
	r.count++
	m := &replica{name: fmt.Sprintf("countersign-%d", r.count), link: kubeserver.RunLink(r.all, r.kube)}
	program := filepath.Join(r.dir, m.name)
	must(t, os.Symlink(r.binary, program))
	m.Manager = operator.RunWith(r.all, r.kube, operator.Options{
		MayMissRights: true, // the API server is restarted
		Binary:        program, APIServer: m.link.URL,
		Args: []string{"--webhook-url=" + r.front.URL, "--shutdown-delay=" + shutdownDelay.String()},
	})
	r.front.Add(m.Manager)
	r.alive = append(r.alive, m)
}

func (r *replicas) gone(m *replica) {
	r.alive = slices.DeleteFunc(r.alive, func(other *replica) bool { return other == m })
}

// leader waits for a replica that says that it leads.
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
		return errors.New("none leads")
	})
	return leader
}

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

// decides waits until a replica admits, or denies, an image under the policy that is edited.
func (r *replicas) decides(t *testing.T, m *replica, want bool) {
	t.Helper()
	poll.Await(t, fmt.Sprintf("%s to answer %t", m.name, want), func() error {
		v, err := review(t.Context(), m.Manager, webhooks.ValidatePath, r.pinned)
		if err == nil && v.Allowed != want {
			err = fmt.Errorf("it answers %+v", v)
		}
		return err
	})
}

// edit requires qa beside ci, or ci alone, and returns when the API server has taken that.
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

// statusRight waits until the status is of the newest edit, which only a leader writes.
func (r *replicas) statusRight(t *testing.T, what string, since time.Time) {
	t.Helper()
	r.ready(t, &v1alpha1.ImagePolicy{}, "switched", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	t.Logf("status right again %s after %s", time.Since(since).Round(10*time.Millisecond), what)
}

// wroteInTurn looks at what the API server was sent: one that follows another in writing is never
// followed by it again.
func (r *replicas) oneWriterAtATime(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	must(t, err)
	var turns []string
	writes := 0
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
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
		case len(turns) > 0 && turns[len(turns)-1] == name:
		case slices.Contains(turns, name):
			t.Errorf("%s sends %s %s after %s have followed it", name, event.Verb, event.URI,
				turns[slices.Index(turns, name)+1:])
		default:
			turns = append(turns, name)
		}
	}
	t.Logf("%d writes, by %s in turn", writes, turns)
	if len(turns) < 4 {
		t.Error("there were fewer leaders than there must have been")
	}
}
