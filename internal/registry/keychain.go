package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxCredentials bounds the credentials that are tried for one repository.
	maxCredentials = 16
	// maxNotes bounds the pull secrets that a message names.
	maxNotes = 8
)

// Credential is a user name and a password of a pull secret, for one registry or a part of it.
type Credential struct {
	Username, Password string
	// Source names the pull secret in messages, as `Secret "pull"`. It contains nothing else of it.
	Source string
}

// Found is the result of a search for pull secrets.
type Found struct {
	// Credentials are those for the repository, in the order in which to try them.
	Credentials []Credential
	// Notes say which pull secrets have none, and why. They contain nothing of the content.
	Notes []string
}

// Keychain finds the pull secrets of a namespace. It is safe for concurrent use.
type Keychain interface {
	// Credentials returns the credentials of a namespace for a repository, named as
	// imageref.Ref.Name does. anew says that the ones found before were refused, so that cached
	// ones are read again. The error is a *trust.Fault.
	Credentials(ctx context.Context, namespace, repository string, anew bool) (Found, error)
}

type accessKey struct{}

// access is the access of a namespace to registries, during one fetch.
type access struct {
	namespace string
	keychain  Keychain

	mu       sync.Mutex
	accepted map[string]account // by repository: the one that a registry has accepted
}

// WithKeychain returns a context in which Images reads registries with the pull secrets of a
// namespace alone: not with the credentials of its configuration, and not anonymously. It is in the
// context because it passes through the formats, which do not use it.
func WithKeychain(ctx context.Context, keychain Keychain, namespace string) context.Context {
	return context.WithValue(ctx, accessKey{}, &access{
		namespace: namespace, keychain: keychain, accepted: map[string]account{},
	})
}

func (a *access) acceptedFor(repository string) (account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	used, ok := a.accepted[repository]
	return used, ok
}

func (a *access) accept(repository string, used account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted[repository] = used
}

// read calls do with the repository: once, or in a context WithKeychain with each credential until
// one is not refused.
func read[T any](ctx context.Context, i *Images, name string, do func(imageRepository) (T, error)) (T, error) {
	var none T
	at, err := i.repository(name)
	if err != nil {
		return none, err
	}
	who, ok := ctx.Value(accessKey{}).(*access)
	if !ok {
		return do(at)
	}
	if at.client.base.Scheme != "https" {
		return none, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: pull secrets are sent over https only", shownURL(at.client.base))
	}
	attempt := func(as account) (T, error) {
		own := at
		own.client = at.client.as(as, i.tokens)
		got, err := do(own)
		if !refused(err) {
			who.accept(name, as)
		}
		return got, err
	}
	var tried []account
	var refusals []string
	if as, ok := who.acceptedFor(name); ok {
		got, err := attempt(as)
		if !refused(err) {
			return got, err
		}
		tried, refusals = append(tried, as), append(refusals, err.Error())
	}
	for _, anew := range []bool{false, true} {
		found, err := who.keychain.Credentials(ctx, who.namespace, name, anew)
		if err != nil {
			return none, err
		}
		if anew {
			refusals = append(refusals, found.Notes...)
		}
		for _, c := range found.Credentials {
			as := account{username: c.Username, password: c.Password, source: c.Source}
			if len(tried) == maxCredentials || slices.Contains(tried, as) {
				continue
			}
			tried = append(tried, as)
			got, err := attempt(as)
			if !refused(err) {
				return got, err
			}
			refusals = append(refusals, err.Error())
		}
	}
	return none, who.refusal(name, refusals)
}

// refused reports whether an error is the refusal of a registry or its token service.
func refused(err error) bool {
	return err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonUnauthorized
}

// refusal is the fault of a repository that no pull secret of the namespace could read.
func (a *access) refusal(repository string, refusals []string) error {
	if len(refusals) == 0 {
		return trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: neither the Pods of namespace %q nor their service accounts name a pull secret", repository,
			a.namespace)
	}
	more := ""
	if n := len(refusals) - maxNotes; n > 0 {
		refusals, more = refusals[:maxNotes], fmt.Sprintf("; and %d more", n)
	}
	return trust.NewFault(v1alpha1.ReasonUnauthorized, "%s: no pull secret of namespace %q could read it: %s%s",
		repository, a.namespace, strings.Join(refusals, "; "), more)
}
