package preview

import (
	"context"
	"fmt"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxHelperError bounds what a message quotes of the error of a credential helper, in bytes.
const maxHelperError = 300

// Docker returns the credentials for a registry or a repository. It has the rules of Docker's
// configuration, with its credential helpers.
type Docker func(ctx context.Context, target authn.Resource) (authn.Authenticator, error)

// UserDocker returns the credentials of the user's own configuration: that of Docker or else of
// Podman.
func UserDocker(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	return authn.Resolve(ctx, authn.DefaultKeychain, target)
}

// login returns a user name and a password; both empty: the configuration has none. host is for
// messages. The error is a *trust.Fault.
func (d Docker) login(ctx context.Context, host string, target authn.Resource) (username, password string, err error) {
	auth, err := d(ctx, target)
	var found *authn.AuthConfig
	if err == nil {
		found, err = authn.Authorization(ctx, auth)
	}
	if err != nil {
		return "", "", trust.NewFault(v1alpha1.ReasonUnauthorized,
			"Docker's configuration could not be read for %s: %s", host, text.Cut(err.Error(), maxHelperError))
	}
	switch {
	case found.Username != "" && found.Password != "":
		return found.Username, found.Password, nil
	case found.IdentityToken != "" || found.RegistryToken != "":
		return "", "", trust.NewFault(v1alpha1.ReasonUnauthorized, "Docker's configuration has a token for %s in "+
			"place of a password, which is not supported; log in with user name and password: docker login %s", host,
			host)
	}
	return "", "", nil
}

// serverAccount returns the credentials for a Notary server whose TrustRoot names none.
func (d Docker) serverAccount(server string) (username, password string, err error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" {
		return "", "", nil //nolint:nilerr // the format reports a wrong URL
	}
	target, err := name.NewRegistry(u.Host)
	if err != nil {
		return "", "", nil //nolint:nilerr // Docker's configuration cannot have an entry for it
	}
	return d.login(context.Background(), u.Host, target)
}

// keychain gives the credentials of Docker's configuration to registries that refuse those of a
// TrustRoot.
type keychain struct{ docker Docker }

var _ registry.Keychain = keychain{}

// Credentials implements registry.Keychain. The namespace does not matter: the credentials are the
// user's.
func (k keychain) Credentials(ctx context.Context, _, repository string, anew bool) (registry.Found, error) {
	target, err := name.NewRepository(repository)
	if err != nil {
		return registry.Found{}, trust.NewFault(v1alpha1.ReasonUnauthorized, "%s: %w", repository, err)
	}
	host := target.RegistryStr()
	username, password, err := k.docker.login(ctx, host, target)
	switch {
	case err != nil:
		return registry.Found{}, err
	case username == "":
		return registry.Found{}, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"Docker's configuration has no credentials for %s either; log in: docker login %s", host, host)
	case anew: // the same were refused
		return registry.Found{}, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s refused user %q of Docker's configuration for %s too; log in as a user who may pull: docker login %s",
			host, username, repository, host)
	}
	return registry.Found{Credentials: []registry.Credential{{
		Username: username, Password: password, Source: fmt.Sprintf("user %q of Docker's configuration", username),
	}}}, nil
}
