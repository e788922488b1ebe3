package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/notarysign"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// request has the image to sign, and the settings for it.
type request struct {
	role, image, tag string
	url, serverCA    string
	rootKeyID        string
	key, passphrase  string
	auth             string // base64 of user:password, in the format of the notary client
	tokenServices    []string
}

// manifest is the signed content: a manifest's repository, digest and size.
type manifest struct {
	repository string
	digest     string
	size       int64
}

// sign signs the image. It returns the roles that have signed the digest under the tag, joined by
// commas.
func sign(ctx context.Context, r request) (string, error) {
	if err := r.complete(); err != nil {
		return "", err
	}
	m, err := r.manifest(ctx)
	if err != nil {
		return "", err
	}
	server, err := r.server()
	if err != nil {
		return "", err
	}
	reader, err := notary.New(notary.Config{Name: "release", RootKeyIDs: []string{r.rootKeyID}}, server)
	if err != nil {
		return "", err
	}
	if _, err := reader.Fetch(ctx, trust.Subject{Repository: m.repository}, nil); err != nil {
		return "", fmt.Errorf("nothing was signed, because the metadata on the server could not be verified: %w", err)
	}
	if err := r.publish(ctx, m); err != nil {
		return "", err
	}
	evidence, err := reader.Fetch(ctx, trust.Subject{Repository: m.repository}, nil)
	if err != nil {
		return "", fmt.Errorf("verifying the new signature: %w", err)
	}
	roles := signedBy(evidence, r.tag, m.digest)
	if !slices.Contains(roles, r.role) {
		return "", fmt.Errorf(
			"the server accepted the signature, but role %q has not signed %s of %s:%s", r.role, m.digest,
			m.repository, r.tag)
	}
	return strings.Join(roles, ", "), nil
}

// complete returns an error that lists all missing settings.
func (r *request) complete() error {
	var missing []error
	for _, setting := range []struct{ value, what string }{
		{r.role, "ROLE, the role to sign for"},
		{r.image, "IMAGE, the image by digest"},
		{r.tag, "VERSION, the tag of the image"},
		{r.url, "NOTARY_SERVER, the URL of the Notary server"},
		{r.rootKeyID, "NOTARY_ROOT_KEY_ID, the ID of the repository's root key"},
		{r.key, "NOTARY_KEY, the file of the role's private key"},
	} {
		if setting.value == "" {
			missing = append(missing, fmt.Errorf("give %s", setting.what))
		}
	}
	return errors.Join(missing...)
}

// manifest fetches the manifest from the registry, and computes its digest from the content. The
// tag must have this digest. Otherwise users of the tag would get another image than the signed
// one.
func (r *request) manifest(ctx context.Context) (manifest, error) {
	ref, err := imageref.Parse(r.image)
	if err != nil {
		return manifest{}, err
	}
	digest, err := name.NewDigest(r.image)
	if err != nil {
		return manifest{}, fmt.Errorf("name the image by its digest: %w", err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	d, err := remote.Get(digest, options...)
	if err != nil {
		return manifest{}, fmt.Errorf("reading the manifest: %w", err)
	}
	tagged, err := remote.Head(digest.Tag(r.tag), options...)
	if err != nil {
		return manifest{}, fmt.Errorf("reading the tag %s: %w", r.tag, err)
	}
	if tagged.Digest != d.Digest {
		return manifest{}, fmt.Errorf("the tag %s has the digest %s in the registry, not %s", r.tag, tagged.Digest,
			d.Digest)
	}
	return manifest{repository: ref.Name(), digest: d.Digest.String(), size: int64(len(d.Manifest))}, nil
}

// server returns the client of the Notary server.
func (r *request) server() (*registry.Client, error) {
	cfg := registry.Config{Server: r.url, TokenServices: r.tokenServices, Publishes: true}
	if r.serverCA != "" {
		bundle, err := os.ReadFile(r.serverCA)
		if err != nil {
			return nil, fmt.Errorf("reading the certificates for the Notary server: %w", err)
		}
		cfg.CABundle = string(bundle)
	}
	if r.auth != "" {
		text, err := base64.StdEncoding.DecodeString(r.auth)
		if err != nil {
			return nil, errors.New("NOTARY_AUTH is not the base64 of user:password")
		}
		cfg.Username, cfg.Password, _ = strings.Cut(string(text), ":")
	}
	client, err := registry.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("reading NOTARY_SERVER and NOTARY_TOKEN_SERVICES: %w", err)
	}
	return client, nil
}

// publish signs for the role alone, and publishes that. The key store, which holds the role's key,
// is temporary.
func (r *request) publish(ctx context.Context, m manifest) error {
	server, err := r.server()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "countersign-sign-")
	if err != nil {
		return fmt.Errorf("making a key store: %w", err)
	}
	defer os.RemoveAll(dir)
	passphrase, err := r.storePassphrase()
	if err != nil {
		return err
	}
	store := &notarykeys.Store{Dir: dir, Passphrases: &notarykeys.Passphrases{
		Getenv: func(name string) string {
			if name == "NOTARY_DELEGATION_PASSPHRASE" {
				return passphrase
			}
			return ""
		},
	}}
	if _, err := store.Import(ctx, r.key, notarykeys.ImportOptions{Name: r.role}); err != nil {
		return fmt.Errorf("reading the key of role %q: %w", r.role, err)
	}
	repository, err := notarysign.Open(ctx, notarysign.Connection{Server: server, Keys: store}, m.repository,
		notarysign.Pins{KeyIDs: []string{r.rootKeyID}})
	if err != nil {
		return err
	}
	defer repository.Close()
	image := notarysign.Image{Tag: r.tag, Digest: m.digest, Size: m.size}
	if _, err := repository.Sign(image, r.role); err != nil {
		return err
	}
	return repository.Publish(ctx)
}

// storePassphrase returns the passphrase of the role's key in the temporary key store: its own, or
// a random one for a key without.
func (r *request) storePassphrase() (string, error) {
	text, err := os.ReadFile(r.key)
	if err != nil {
		return "", fmt.Errorf("reading the key of role %q: %w", r.role, err)
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	encrypted := block == nil || strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != ""
	switch {
	case !encrypted:
		return rand.Text(), nil
	case r.passphrase == "":
		return "", fmt.Errorf("the key of role %q is no unencrypted private key in PEM; for an encrypted one, as "+
			"\"notary key export\" writes it, set NOTARY_DELEGATION_PASSPHRASE", r.role)
	}
	return r.passphrase, nil
}

// signedBy returns the roles that have signed a digest under a tag.
func signedBy(evidence trust.Evidence, tag, digest string) []string {
	var roles []string
	for _, s := range evidence.Statements(tag, "") {
		if s.Digest == digest {
			roles = append(roles, s.Role)
		}
	}
	slices.SortFunc(roles, cmp.Compare)
	return slices.Compact(roles)
}
