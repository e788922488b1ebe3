package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/utils/lru"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// MaxManifest bounds a manifest or an index, in bytes, as registries do (OCI distribution
	// specification, "Pushing Manifests").
	MaxManifest = 4 << 20
	// maxClients bounds the registries that are not configured for which a client is kept.
	maxClients = 256

	dockerIO          = "docker.io"
	dockerIOServer    = "https://registry-1.docker.io"
	dockerIORealm     = "auth.docker.io"
	manifestMediaType = "application/vnd.oci.image.manifest.v1+json"
	indexMediaType    = "application/vnd.oci.image.index.v1+json"
	// acceptManifests is every type of manifest that an image may have.
	acceptManifests = manifestMediaType + "," + indexMediaType + "," +
		"application/vnd.docker.distribution.manifest.v2+json," +
		"application/vnd.docker.distribution.manifest.list.v2+json"
)

// ImagesConfig describes the image registries that a trust root reads. The zero value is complete.
type ImagesConfig struct {
	// Registries are the settings of registries by their host, as normalised references have it.
	// Server is left empty: it follows from the host. A registry that is not listed is read over
	// https, with the system's CAs and without credentials.
	Registries map[string]Config
	// Hosts bounds the requests to each host. Nil: those of this object alone.
	Hosts *Hosts
	// Budget bounds the memory of decoding. Nil: a budget of its own.
	Budget *budget.Budget
	// Timeout bounds one request, body included. Zero: 45 seconds.
	Timeout time.Duration
}

// Images reads image registries by the OCI distribution specification: the digest of a tag,
// manifests, referrers and blobs. It is safe for concurrent use.
//
// Every body is hashed and compared with the digest that it was requested by. The answer for a tag
// is what the registry says and nothing more.
type Images struct {
	cfg ImagesConfig

	tokens *cache.LRUExpireCache // of pull secrets, as in Client
	// configured are the clients of the registries in the configuration, by host. They are not in
	// the cache: Pods may name any number of others, which would evict them with their tokens.
	configured map[string]*Client

	mu      sync.Mutex
	clients *lru.Cache // the host of a registry, or the base URL of a storage host -> *Client
}

// NewImages returns a reader of image registries. It connects to nothing. The error names the
// registry and the setting that cannot be used.
func NewImages(cfg ImagesConfig) (*Images, error) {
	if cfg.Hosts == nil {
		cfg.Hosts = NewHosts(time.Now)
	}
	if cfg.Budget == nil {
		cfg.Budget = budget.New(budget.Default)
	}
	i := &Images{
		cfg: cfg, tokens: cache.NewLRUExpireCache(maxTokens), clients: lru.New(maxClients),
		configured: map[string]*Client{},
	}
	for host := range cfg.Registries {
		c, err := i.client(host)
		if err != nil {
			return nil, fmt.Errorf("registry %q: %w", host, err)
		}
		i.configured[host] = c
	}
	return i, nil
}

// client returns the client of a registry.
func (i *Images) client(host string) (*Client, error) {
	if c := i.configured[host]; c != nil {
		return c, nil
	}
	cfg, listed := i.cfg.Registries[host]
	cfg.terms, cfg.unlisted = ofRegistry(), !listed && host != dockerIO
	switch {
	case host == dockerIO:
		cfg.Server = dockerIOServer
		cfg.TokenServices = append([]string{dockerIORealm}, cfg.TokenServices...)
	case cfg.PlainHTTP:
		cfg.Server = "http://" + host
	default:
		cfg.Server = "https://" + host
	}
	return i.cached(host, cfg)
}

// cached returns the client of a name, which it makes where it is not in the cache.
func (i *Images) cached(name string, cfg Config) (*Client, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c, ok := i.clients.Get(name); ok {
		return c.(*Client), nil //nolint:errcheck // the cache holds nothing else
	}
	cfg.Hosts, cfg.Timeout = i.cfg.Hosts, cmp.Or(cfg.Timeout, i.cfg.Timeout)
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	i.clients.Add(name, c)
	return c, nil
}

// Probe checks that a registry answers in the words of its protocol. A registry that refuses a
// client without credentials passes: it may let everybody read some repositories, and Pods may name
// others. The error is a *trust.Fault.
func (i *Images) Probe(ctx context.Context, host string) error {
	c, err := i.client(host)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", host, err)
	}
	_, err = c.Get(ctx, "", "/v2/", maxErrorBody)
	switch {
	case errors.Is(err, trust.ErrNotFound): // of a registry that serves no base endpoint
		return nil
	case refused(err) && !c.hasCredentials():
		return nil
	}
	return err
}

// Resolve returns the digest that a registry has for a tag of a repository, which is named as
// imageref.Ref.Name does. The error satisfies errors.Is(err, trust.ErrNotFound) where the registry
// says that it has no such tag or repository, and is otherwise a *trust.Fault.
func (i *Images) Resolve(ctx context.Context, repository, tag string) (digest string, err error) {
	return read(ctx, i, repository, func(at imageRepository) (string, error) { return at.resolve(ctx, tag) })
}

func (r imageRepository) resolve(ctx context.Context, tag string) (digest string, err error) {
	wanted, err := r.manifest(tag)
	if err != nil {
		return "", err
	}
	wanted.method = http.MethodHead
	by, resp, body, err := r.send(ctx, wanted)
	if err != nil {
		return "", err
	}
	if named := resp.Header.Get("Docker-Content-Digest"); resp.StatusCode == http.StatusOK &&
		imageref.ValidDigest(named) {
		return named, nil
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return "", r.check(wanted, by, resp, body)
	}
	// The answer to a HEAD has no body, which alone tells an error of the registry from one of
	// something in between; and some registries serve no HEAD, or name no digest.
	m, err := r.get(ctx, tag, MaxManifest)
	if err != nil {
		return "", err
	}
	if !json.Valid(m.Body) { // its digest would be one that nobody has signed
		return "", trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the manifest is no JSON: the answer was cut short, or something else than a registry gave it",
			r.shownURL("manifests/"+tag))
	}
	return m.Digest, nil
}

// Manifest is a manifest or an index as a registry serves it.
type Manifest struct {
	// MediaType is that of the response. The body may name another.
	MediaType string
	// Digest is the SHA-256 of Body, as "sha256:" and 64 hexadecimal digits.
	Digest string
	Body   []byte
}

// Manifest returns the manifest of a digest, of at most limit bytes. Its errors are those of
// Resolve. A body that does not hash to the digest is a *trust.Fault.
func (i *Images) Manifest(ctx context.Context, repository, digest string, limit int64) (Manifest, error) {
	return read(ctx, i, repository, func(at imageRepository) (Manifest, error) {
		m, err := at.get(ctx, digest, limit)
		if err != nil {
			return Manifest{}, err
		}
		if m.Digest != digest {
			return Manifest{}, wrongHash(at.shownURL("manifests/"+digest), m.Digest)
		}
		return m, nil
	})
}

// Tagged returns what a registry has under a tag, hashed. Its errors are those of Resolve.
func (i *Images) Tagged(ctx context.Context, repository, tag string) (Manifest, error) {
	return read(ctx, i, repository, func(at imageRepository) (Manifest, error) { return at.get(ctx, tag, MaxManifest) })
}

// Blob returns a blob of at most limit bytes. It follows a redirect to a storage host without
// credentials. Its errors are those of Manifest.
func (i *Images) Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error) {
	return read(ctx, i, repository, func(at imageRepository) ([]byte, error) { return i.blob(ctx, at, digest, limit) })
}

func (i *Images) blob(ctx context.Context, at imageRepository, digest string, limit int64) ([]byte, error) {
	target, err := at.target("blobs/" + digest)
	if err != nil {
		return nil, err
	}
	by, resp, body, err := at.send(ctx, request{target: target, accept: "*/*", limit: limit})
	if err != nil {
		return nil, err
	}
	sum := digestOf(body)
	if sum == digest && resp.StatusCode == http.StatusOK {
		return body, nil // whatever it looks like: a blob may begin as a web page does
	}
	if by == at.client {
		err = by.checkResponse(resp, body)
	} else {
		err = redirected(target, by.checkStorage(resp))
	}
	if err != nil {
		return nil, err
	}
	return nil, wrongHash(at.shownURL("blobs/"+digest), sum)
}

// imageRepository is one repository of a registry.
type imageRepository struct {
	images *Images
	client *Client
	path   string // without the host: what tokens are scoped to
}

// repository returns the repository of a normalised name, "registry.example.com:5000/acme/app".
func (i *Images) repository(name string) (imageRepository, error) {
	ref, err := imageref.Parse(name)
	if err != nil || ref.Name() != name {
		return imageRepository{}, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%q is not the name of a repository", name)
	}
	c, err := i.client(ref.Host)
	if err != nil {
		return imageRepository{}, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", ref.Host, err)
	}
	return imageRepository{images: i, client: c, path: ref.Path}, nil
}

// target is the URL of what the repository has at a path.
func (r imageRepository) target(file string) (*url.URL, error) { return r.client.target(r.file(file)) }

func (r imageRepository) file(file string) string { return "/v2/" + r.path + "/" + file }

// shownURL is what messages show of a path of the repository.
func (r imageRepository) shownURL(file string) string {
	return strings.TrimRight(shownURL(r.client.base), "/") + r.file(file)
}

// manifest is the request for the manifest of a tag or digest.
func (r imageRepository) manifest(reference string) (request, error) {
	target, err := r.target("manifests/" + reference)
	return request{target: target, accept: acceptManifests, limit: MaxManifest}, err
}

// get fetches the manifest of a tag or digest, and computes its digest. Where the registry names
// another one beside the body, that is a fault.
func (r imageRepository) get(ctx context.Context, reference string, limit int64) (Manifest, error) {
	wanted, err := r.manifest(reference)
	if err != nil {
		return Manifest{}, err
	}
	wanted.limit = limit
	by, resp, body, err := r.send(ctx, wanted)
	if err != nil {
		return Manifest{}, err
	}
	if err := r.check(wanted, by, resp, body); err != nil {
		return Manifest{}, err
	}
	m := Manifest{MediaType: resp.Header.Get("Content-Type"), Digest: digestOf(body), Body: body}
	if named := resp.Header.Get("Docker-Content-Digest"); imageref.ValidDigest(named) && named != m.Digest {
		return Manifest{}, wrongHash(r.shownURL("manifests/"+reference), m.Digest)
	}
	return m, nil
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func wrongHash(where, digest string) error {
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
		"%s: the body hashes to %s, which is not its digest: the answer was changed on its way, or the registry's "+
			"storage is damaged", where, digest)
}
