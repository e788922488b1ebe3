package notaryserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	gun = "localhost:5000/acme/app"
	sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

// get fetches a metadata file of a repository from a server.
func get(ctx context.Context, n *Server, file string, auth func(*http.Request)) (*http.Response, []byte, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: n.CA.Pool()}, DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/v2/"+gun+"/_trust/tuf/"+file, nil)
	if err != nil {
		return nil, nil, err
	}
	if auth != nil {
		auth(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestNotary(t *testing.T) {
	tests := map[string]struct {
		options       Options
		timestampKeys string
	}{
		"local keys":    {Options{}, "ed25519"},
		"remote signer": {Options{Signer: true}, "ecdsa"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			n := Run(t, tt.options)
			c := RunClient(t, n)
			keys, err := c.CreateRepository(ctx, gun, "ci", "qa")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.AddHash(ctx, gun, "v1", 528, sum, "targets/ci", "targets/qa"); err != nil {
				t.Fatal(err)
			}
			for role, key := range keys {
				_, body, err := get(ctx, n, "targets/"+role+".json", nil)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(body, []byte(`"v1"`)) {
					t.Errorf("targets/%s does not list v1: %s", role, body)
				}
				if _, body, err = get(ctx, n, "targets.json", nil); err != nil ||
					!bytes.Contains(body, []byte(`"name":"targets/`+role+`"`)) {
					t.Errorf("no delegation targets/%s (%v): %s", role, err, body)
				}
				if out, err := c.Run(ctx, "delegation", "list", gun); err != nil || !strings.Contains(out, key.KeyID) {
					t.Errorf("notary does not know the key of %s as %s (%v):\n%s", role, key.KeyID, err, out)
				}
			}
			if got := keyType(t, n, "timestamp"); got != tt.timestampKeys {
				t.Errorf("got a timestamp key of type %s, want %s", got, tt.timestampKeys)
			}
			if err := c.Remove(ctx, gun, "v1", "targets/qa"); err != nil {
				t.Fatal(err)
			}
			if _, body, err := get(ctx, n, "targets/qa.json", nil); err != nil || bytes.Contains(body, []byte(`"v1"`)) {
				t.Errorf("targets/qa still lists v1 (%v): %s", err, body)
			}
			if err := c.AddHash(ctx, gun, "repo-admin", 528, sum); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNotaryRootRotation(t *testing.T) {
	ctx := t.Context()
	n := Run(t, Options{})
	c := RunClient(t, n)
	if err := c.Init(ctx, gun); err != nil {
		t.Fatal(err)
	}
	before, err := c.Root(gun)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Run(ctx, "key", "list")
	if err != nil || !strings.Contains(out, before.KeyID) {
		t.Errorf("notary key list does not know root key %s (%v):\n%s", before.KeyID, err, out)
	}
	if err := c.RotateRoot(ctx, gun); err != nil {
		t.Fatal(err)
	}
	after, err := c.Root(gun)
	if err != nil {
		t.Fatal(err)
	}
	if before.KeyID == after.KeyID {
		t.Errorf("root key %s is still the same after rotation", before.KeyID)
	}
	resp, _, err := get(ctx, n, "2.root.json", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v for 2.root.json, want status 200", resp, err)
	}
}

func TestNotaryTokenAuth(t *testing.T) {
	ctx := t.Context()
	n := Run(t, Options{Auth: &Auth{Username: "reader", Password: "secret"}})
	c := RunClient(t, n)
	if err := c.Init(ctx, gun); err != nil {
		t.Fatal(err)
	}
	resp, _, err := get(ctx, n, "root.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	challenge := resp.Header.Get("WWW-Authenticate")
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, `scope="repository:`+gun+`:pull"`) {
		t.Fatalf("without a token: got %s, challenge %q; want status 401 and the scope of %s", resp.Status, challenge,
			gun)
	}
	issued := n.TokensIssued()
	token, err := n.tokens.Token(gun)
	if err != nil {
		t.Fatal(err)
	}
	resp, _, err = get(ctx, n, "root.json", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("with a token: got %v, %v; want status 200", resp, err)
	}
	if issued == 0 {
		t.Error("the notary command published, and the token service issued no token")
	}
}

func TestNotaryOutage(t *testing.T) {
	ctx := t.Context()
	n := Run(t, Options{Signer: true})
	c := RunClient(t, n)
	if err := c.Init(ctx, gun); err != nil {
		t.Fatal(err)
	}
	status := func() (int, error) {
		resp, _, err := get(ctx, n, "root.json", nil)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, nil
	}
	n.Disconnect()
	if _, err := status(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("disconnected: got %v, want a refused connection", err)
	}
	if err := n.Reconnect(); err != nil {
		t.Fatal(err)
	}
	if code, err := status(); code != http.StatusOK {
		t.Errorf("reconnected: got status %d, %v; want the repository as before", code, err)
	}

	if err := n.Server().Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, _, err := get(short, n, "root.json", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("paused: got %v, want an exceeded deadline", err)
	}
	if err := n.Server().Resume(); err != nil {
		t.Fatal(err)
	}
	if code, err := status(); code != http.StatusOK {
		t.Errorf("resumed: got status %d, %v; want the repository as before", code, err)
	}

	if err := n.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if code, err := status(); code != http.StatusNotFound {
		t.Errorf("restarted: got status %d, %v; want an empty server", code, err)
	}
}

// keyType returns the type of the key of a top-level role.
func keyType(t *testing.T, n *Server, role string) string {
	t.Helper()
	_, body, err := get(t.Context(), n, "root.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	var root struct {
		Signed struct {
			Keys  map[string]struct{ KeyType string }
			Roles map[string]struct{ KeyIDs []string }
		}
	}
	if err := json.Unmarshal(body, &root); err != nil {
		t.Fatal(fmt.Errorf("%w: %s", err, body))
	}
	return root.Signed.Keys[root.Signed.Roles[role].KeyIDs[0]].KeyType
}
