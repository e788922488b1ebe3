// Package pullsecrets finds the image pull secrets that may read an image: those of the Pods of one
// namespace, and those of their service accounts.
//
// It returns a secret only for its own namespace, and only for the repositories that its entries
// name, as the kubelet matches them. It reads a Secret only by its name, only from the API server,
// and only if a Pod or a service account names it as a pull secret. It never lists or watches
// Secrets, and puts nothing of their content into an error.
package pullsecrets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// defaultAccount is the service account of a Pod that names none.
	defaultAccount = "default"
	// maxNamespaces, maxUsers and maxNames bound the names that are kept: namespaces, the latest
	// distinct users of each, and pull secrets of each user or service account.
	maxNamespaces = 4096
	maxUsers      = 32
	maxNames      = 16
	// readFor is for how long the content of an object counts, and readAnew for how long it counts
	// after a registry has refused what it contains.
	readFor  = time.Minute
	readAnew = 5 * time.Second
	// maxRead bounds the objects whose content is kept.
	maxRead = 512
	// readTimeout bounds a read from the API server, which serves all who wait for it.
	readTimeout = 10 * time.Second
	// podsPage is how many Pods one response of the API server lists, and maxPods how many of a
	// namespace are looked at.
	podsPage = 100
	maxPods  = 1000
)

// User is what a Pod, or the template of one, says about its pull secrets.
type User struct {
	// Secrets are the names of its imagePullSecrets.
	Secrets []string
	// ServiceAccount is the name of its service account; empty: default.
	ServiceAccount string
}

// Finder finds pull secrets. Make it with New. It is safe for concurrent use, and implements
// registry.Keychain.
type Finder struct {
	live  client.Reader
	clock clock.PassiveClock

	noted   *lru.Cache            // namespace -> []User, the latest first
	read    *cache.LRUExpireCache // object -> contents
	reading singleflight.Group    // by object
}

var _ registry.Keychain = (*Finder)(nil)

// New returns a Finder that reads from the API server. live must not be a cache.
func New(live client.Reader, c clock.PassiveClock) *Finder {
	return &Finder{
		live: live, clock: c, noted: lru.New(maxNamespaces), read: cache.NewLRUExpireCacheWithClock(maxRead, c),
	}
}

// Keychain returns f, or nil if f is nil.
func (f *Finder) Keychain() registry.Keychain {
	if f == nil {
		return nil
	}
	return f
}

// Note remembers that a Pod of a namespace, or the template of one, is about to be decided on. The
// latest are tried first.
func (f *Finder) Note(namespace string, u User) {
	u = bounded(u)
	var users []User
	if v, ok := f.noted.Get(namespace); ok {
		users, _ = v.([]User)
	}
	if len(users) > 0 && users[0].equal(u) {
		return
	}
	// A concurrent call may overwrite this one: its user is noted by the next request.
	f.noted.Add(namespace, prepend(users, u))
}

// prepend returns users with u first. Users are immutable.
func prepend(users []User, u User) []User {
	next := append(make([]User, 0, maxUsers), u)
	for _, other := range users {
		if len(next) < maxUsers && !other.equal(u) {
			next = append(next, other)
		}
	}
	return next
}

func (u User) equal(other User) bool {
	return u.ServiceAccount == other.ServiceAccount && slices.Equal(u.Secrets, other.Secrets)
}

// bounded returns a copy of a user without the names that no object can have.
func bounded(u User) User {
	account := u.ServiceAccount
	if !canExist(account) {
		account = defaultAccount
	}
	return User{Secrets: boundedNames(u.Secrets), ServiceAccount: strings.Clone(account)}
}

// canExist reports whether an object can have a name. The API server accepts any in a Pod, and the
// client fails on it, which would keep the other users of the namespace from their pull secrets.
func canExist(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }

func boundedNames(names []string) []string {
	var kept []string
	for _, name := range names {
		if canExist(name) && len(kept) < maxNames && !slices.Contains(kept, name) {
			kept = append(kept, strings.Clone(name))
		}
	}
	return kept
}

// Credentials implements registry.Keychain. It looks at the latest users of the namespace. If there
// are none, or what they have was refused, it looks at the Pods that run too: another replica may
// have admitted them. The error is a *trust.Fault that names what the operator may not read.
func (f *Finder) Credentials(ctx context.Context, namespace, repository string, anew bool) (registry.Found, error) {
	var users []User
	if v, ok := f.noted.Get(namespace); ok {
		users, _ = v.([]User)
	}
	age := readFor
	if anew {
		age = readAnew
	}
	if anew || len(users) == 0 {
		running, err := f.running(ctx, namespace)
		if err != nil {
			return registry.Found{}, err
		}
		users = slices.Concat(users, running)
	}
	names, err := f.secretNames(ctx, namespace, users, age)
	if err != nil {
		return registry.Found{}, err
	}
	var found registry.Found
	for _, name := range names {
		source := fmt.Sprintf("Secret %q", name)
		s, err := f.secret(ctx, namespace, name, age)
		if err != nil {
			return registry.Found{}, err
		}
		matches := matching(s.entries, repository)
		for _, e := range matches {
			if e.unusable != "" {
				found.Notes = append(found.Notes, source+": its entry for this repository "+e.unusable)
				continue
			}
			found.Credentials = append(found.Credentials,
				registry.Credential{Username: e.username, Password: e.password, Source: source})
		}
		switch {
		case s.unusable != "":
			found.Notes = append(found.Notes, source+" "+s.unusable)
		case len(matches) == 0:
			found.Notes = append(found.Notes, source+" has no entry for this repository")
		}
	}
	return found, nil
}

// secretNames returns the names of the pull secrets of users and of their service accounts, each
// once.
func (f *Finder) secretNames(ctx context.Context, namespace string, users []User, age time.Duration) ([]string, error) {
	var names []string
	add := func(more []string) {
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, u := range users {
		add(u.Secrets)
		account, err := f.account(ctx, namespace, u.ServiceAccount, age)
		if err != nil {
			return nil, err
		}
		add(account)
	}
	return names, nil
}

// contents is what is kept of an object.
type contents struct {
	read time.Time

	entries  []entry  // of a Secret
	unusable string   // why a Secret has none
	names    []string // of the pull secrets of a service account
	users    []User   // of the Pods of a namespace
}

// get returns the contents of an object, which it reads if they are older than age. One read serves
// all who wait. An error is not kept.
func (f *Finder) get(ctx context.Context, object string, age time.Duration,
	read func(context.Context) (*contents, error)) (*contents, error) {
	if v, ok := f.read.Get(object); ok {
		if have, ok := v.(*contents); ok && f.clock.Since(have.read) < age {
			return have, nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	v, err, _ := f.reading.Do(object, func() (any, error) {
		now := f.clock.Now()
		c, err := read(ctx)
		if err != nil {
			return nil, err
		}
		c.read = now
		f.read.Add(object, c, readFor)
		return c, nil
	})
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonPullSecretsUnreadable, "could not read the %s: %w", object, err)
	}
	c, _ := v.(*contents)
	return c, nil
}

// secret returns the entries of a Secret.
func (f *Finder) secret(ctx context.Context, namespace, name string, age time.Duration) (*contents, error) {
	object := fmt.Sprintf("Secret %q of namespace %q", name, namespace)
	return f.get(ctx, object, age, func(ctx context.Context) (*contents, error) {
		var s corev1.Secret
		err := f.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &s)
		if apierrors.IsNotFound(err) {
			return &contents{unusable: "does not exist"}, nil // as in the kubelet, no error
		}
		if err != nil {
			return nil, explain(err, "secrets")
		}
		entries, unusable := readSecret(&s)
		if unusable != nil {
			return &contents{unusable: unusable.Error()}, nil //nolint:nilerr // other Secrets may be usable
		}
		return &contents{entries: entries}, nil
	})
}

// account returns the names of the pull secrets of a service account.
func (f *Finder) account(ctx context.Context, namespace, name string, age time.Duration) ([]string, error) {
	object := fmt.Sprintf("ServiceAccount %q of namespace %q", name, namespace)
	c, err := f.get(ctx, object, age, func(ctx context.Context) (*contents, error) {
		var a corev1.ServiceAccount
		err := f.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &a)
		if client.IgnoreNotFound(err) != nil {
			return nil, explain(err, "serviceaccounts")
		}
		return &contents{names: boundedNames(references(a.ImagePullSecrets))}, nil
	})
	if err != nil {
		return nil, err
	}
	return c.names, nil
}

// running returns the distinct users among the Pods of a namespace that have not ended.
func (f *Finder) running(ctx context.Context, namespace string) ([]User, error) {
	object := fmt.Sprintf("Pods of namespace %q", namespace)
	c, err := f.get(ctx, object, readFor, func(ctx context.Context) (*contents, error) {
		var users []User
		next := ""
		for range maxPods / podsPage {
			var page corev1.PodList
			err := f.live.List(ctx, &page, client.InNamespace(namespace), client.Limit(podsPage),
				client.Continue(next))
			if err != nil {
				return nil, err
			}
			for i := range page.Items {
				users = addRunning(users, &page.Items[i])
			}
			if next = page.Continue; next == "" || len(users) == maxUsers {
				break
			}
		}
		return &contents{users: users}, nil
	})
	if err != nil {
		return nil, err
	}
	return c.users, nil
}

func addRunning(users []User, p *corev1.Pod) []User {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || len(users) == maxUsers {
		return users
	}
	u := bounded(User{Secrets: references(p.Spec.ImagePullSecrets), ServiceAccount: p.Spec.ServiceAccountName})
	if slices.ContainsFunc(users, u.equal) {
		return users
	}
	return append(users, u)
}

func references(all []corev1.LocalObjectReference) []string {
	names := make([]string, 0, len(all))
	for _, r := range all {
		names = append(names, r.Name)
	}
	return names
}

// explain adds to an error of the API server what to grant.
func explain(err error, resource string) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("with --use-pull-secrets the operator must be allowed to get %s in every namespace; "+
			"install the component pull-secrets: %w", resource, err)
	}
	return err
}
