package notarysign

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// A server with a token service accepts a publication with the right account. Without one, the
// error says what to do.
func TestPublishWithAccount(t *testing.T) {
	server := notaryserver.Run(t, notaryserver.Options{Auth: &notaryserver.Auth{
		Username: "publisher", Password: "secret", AnonymousPull: true,
	}})
	b := &bed{t: t, server: server, client: notaryserver.RunClient(t, server)}
	b.store = storeOf(b.client.Dir, passphrase)
	connect := func(username, password string) Connection {
		t.Helper()
		c, err := registry.New(registry.Config{
			Server: server.URL, CABundle: string(server.CA.PEM), TokenServices: []string{server.TokenService},
			Username: username, Password: password, Publishes: true, CommandLine: true,
		})
		b.must(err)
		return Connection{Server: c, Keys: b.store}
	}
	for name, c := range map[string]struct{ username, password, want string }{
		"no account":     {"", "", "access was refused"},
		"wrong password": {"publisher", "wrong", `the credentials of user "publisher"`},
	} {
		r, err := New(b.ctx(), connect(c.username, c.password), gun, Pins{})
		if err == nil {
			err = r.Publish(b.ctx())
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if keys, err := b.store.List(); err != nil || len(keys) > 0 {
		t.Errorf("got keys %v, %v after the refusals, want none", keys, err)
	}
	b.conn = connect("publisher", "secret")
	b.initialise("ci")
	b.sign("v1", digestA, "ci")
	b.want("roles", b.roles("v1", digestA), "ci")
}
