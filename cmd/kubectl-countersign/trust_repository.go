package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/notarysign"
	"github.com/countersign-dev/countersign/internal/text"
)

var keyID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// repositoryOptions are the options of the commands about a repository on a Notary server.
type repositoryOptions struct {
	*trustOptions

	settings notarysign.Settings
	roots    []string
	dryRun   bool
	out      *output
	store    *notarykeys.Store
}

// newRepositoryOptions adds the flags of a server to a command.
func newRepositoryOptions(c *cobra.Command, o *trustOptions) *repositoryOptions {
	r := &repositoryOptions{trustOptions: o, settings: notarysign.Settings{Getenv: os.Getenv}}
	f := c.Flags()
	f.StringVarP(&r.settings.Server, "server", "s", "", "URL of the Notary server (default "+
		"$DOCKER_CONTENT_TRUST_SERVER, $NOTARY_REMOTE_SERVER_URL, or the host of the image)")
	f.StringVar(&r.settings.ServerCA, "server-ca", "", "file with the CAs of the server's certificate (default "+
		"$NOTARY_REMOTE_SERVER_ROOT_CA, ~/.docker/tls/<host>/ca.crt, or the CAs of the system)")
	f.StringSliceVar(&r.settings.TokenServices, "token-service", nil,
		"further host that may issue tokens for the server, with its port unless it is 443")
	r.out = addOutput(c)
	return r
}

// addRoot adds --root.
func (r *repositoryOptions) addRoot(c *cobra.Command) {
	c.Flags().StringSliceVar(&r.roots, "root", nil, "root key that the repository must have: a key ID, or a file with "+
		"a public key or certificate (default: the root keys in the trust directory)")
}

// addPublish adds the flags of a command that publishes.
func (r *repositoryOptions) addPublish(c *cobra.Command) {
	r.addRoot(c)
	c.Flags().BoolVar(&r.dryRun, "dry-run", false, "print what would change, and change nothing")
}

// parseRepository reads IMAGE[:TAG].
func parseRepository(text string) (repository, tag, digest string, err error) {
	ref, err := imageref.Parse(text)
	if err != nil {
		return "", "", "", err
	}
	named, _, _ := strings.Cut(text, "@")
	if strings.Contains(named[strings.LastIndex(named, "/")+1:], ":") { // not the tag that Parse adds
		tag = ref.Tag
	}
	return ref.Name(), tag, ref.Digest, nil
}

// connect returns the way to the server and the key store.
func (r *repositoryOptions) connect(repository string) (notarysign.Connection, *notarysign.Reached, error) {
	store, err := r.keys()
	if err != nil {
		return notarysign.Connection{}, nil, err
	}
	server, err := r.settings.Connect(repository)
	if err != nil {
		return notarysign.Connection{}, nil, err
	}
	r.store = store
	return notarysign.Connection{
		Server: server, Keys: store,
		Seen: &notarysign.SeenFolder{Dir: filepath.Join(store.Dir, "countersign", "seen"), Server: server.URL},
	}, server, nil
}

// pins reads --root.
func (r *repositoryOptions) pins() (notarysign.Pins, error) {
	var p notarysign.Pins
	for _, root := range r.roots {
		if keyID.MatchString(root) {
			p.KeyIDs = append(p.KeyIDs, root)
			continue
		}
		text, err := os.ReadFile(root) //nolint:gosec // the user names the file
		if err != nil {
			return p, fmt.Errorf("--root: %q is neither a key ID of 64 digits nor a readable file: %w", root, err)
		}
		p.Keys = append(p.Keys, notarysign.PEM{Field: "--root " + root, Data: string(text)})
	}
	return p, nil
}

// open opens a repository. Without --root, the root keys of the store count. Otherwise a person at
// a terminal confirms the root. Without a terminal, an unknown root is an error.
func (r *repositoryOptions) open(ctx context.Context, repository string) (*notarysign.Repository, error) {
	conn, _, err := r.connect(repository)
	if err != nil {
		return nil, err
	}
	pins, err := r.pins()
	if err != nil {
		return nil, err
	}
	if !pins.Empty() {
		return notarysign.Open(ctx, conn, repository, pins)
	}
	own, err := r.store.Find(notarykeys.RoleRoot, "")
	if err != nil {
		return nil, err
	}
	for _, k := range own {
		pins.KeyIDs = append(pins.KeyIDs, k.ID)
	}
	if !pins.Empty() {
		opened, err := notarysign.Open(ctx, conn, repository, pins)
		if !errors.Is(err, notarysign.ErrNotPinned) {
			return opened, err
		}
	}
	if pins, err = r.confirmRoot(ctx, conn, repository); err != nil {
		return nil, err
	}
	return notarysign.Open(ctx, conn, repository, pins)
}

// confirmRoot lets a person compare the root of the server with that of the publisher.
func (r *repositoryOptions) confirmRoot(ctx context.Context, conn notarysign.Connection,
	repository string) (notarysign.Pins, error) {
	shown, err := notarysign.Show(ctx, conn, repository)
	if err != nil {
		return notarysign.Pins{}, err
	}
	if notarykeys.OpenTerminal(r.In, r.ErrOut) == nil {
		return notarysign.Pins{}, fmt.Errorf("no root key of %s is known here, and no terminal to confirm it; "+
			"give the key ID that its publisher tells you with --root", repository)
	}
	fmt.Fprintf(r.ErrOut, "The server shows this root of %s, and nothing vouches for it:\n", repository)
	for _, k := range shown.Keys {
		fmt.Fprintf(r.ErrOut, "  %s  (%q)\n", text.Line(k.ID), k.CommonName)
	}
	ok, err := r.confirm(ctx, "Is this the key ID that the publisher told you? Type yes: ")
	if err != nil {
		return notarysign.Pins{}, err
	}
	if !ok {
		return notarysign.Pins{}, errors.New("the root was not confirmed; nothing was changed")
	}
	return notarysign.Pins{KeyIDs: shown.KeyIDs()}, nil
}

// confirm reports whether a person at the terminal types yes.
func (r *repositoryOptions) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(r.ErrOut, question)
	read := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(r.In).ReadString('\n')
		read <- strings.TrimSpace(line)
	}()
	select {
	case line := <-read:
		return line == "yes", nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// openOrMake is open. If that is allowed, it makes a repository that the server does not have.
func (r *repositoryOptions) openOrMake(ctx context.Context, repository string,
	allowed bool) (opened *notarysign.Repository, made bool, err error) {
	opened, err = r.open(ctx, repository)
	if !errors.Is(err, notarysign.ErrNoRepository) {
		return opened, false, err
	}
	if !allowed {
		return nil, false, fmt.Errorf("%w; check the name, or make it with --init", err)
	}
	conn, _, err := r.connect(repository)
	if err != nil {
		return nil, false, err
	}
	pins, err := r.pins()
	if err != nil {
		return nil, false, err
	}
	opened, err = notarysign.New(ctx, conn, repository, pins)
	return opened, true, err
}

// published is the output of a command that publishes.
type published struct {
	Repository string   `json:"repository"`
	DryRun     bool     `json:"dryRun,omitempty"`
	Changes    []string `json:"changes"`
	Warnings   []string `json:"warnings,omitempty"`
	Roles      []string `json:"roles,omitempty"`
	Digest     string   `json:"digest,omitempty"`
}

// publish publishes the changes, or prints them with --dry-run. done says in a line what happened.
func (r *repositoryOptions) publish(ctx context.Context, opened *notarysign.Repository, result published,
	done string) error {
	result.DryRun = r.dryRun
	result.Changes = append([]string{}, opened.Changes()...)
	if !r.dryRun {
		if err := opened.Publish(ctx); err != nil {
			return err
		}
	}
	result.Warnings = slices.Concat(result.Warnings, opened.Warnings(), opened.Inspect("", expiresSoon).Warnings)
	for _, w := range result.Warnings {
		r.warn("%s", w)
	}
	out := text.Line(done) + "\n"
	if r.dryRun {
		out = "Nothing to change.\n"
		for i, change := range result.Changes {
			if i == 0 {
				out = ""
			}
			out += "Would " + text.Line(change) + "\n"
		}
	} else {
		r.adviseBackup(opened.NewKeys()...)
	}
	return r.print(r.out, result, out)
}
