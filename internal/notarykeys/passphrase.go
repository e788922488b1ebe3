package notarykeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrPassphrase says that no passphrase decrypts a key.
var ErrPassphrase = errors.New("the passphrase is wrong")

const (
	// minPassphrase is the length of the shortest passphrase of a new key, in characters.
	minPassphrase = 8
	// maxAttempts bounds how often a passphrase may be typed.
	maxAttempts = 3
)

// Passphrases gives passphrases of keys: from the variables of Docker and of the notary client, or
// from a terminal.
type Passphrases struct {
	// Getenv reads an environment variable, as os.Getenv does. An empty variable counts as not set.
	Getenv func(name string) string
	// Terminal reads a passphrase without echo. Nil: there is no terminal.
	Terminal Terminal
}

// Variables returns the names of the environment variables that may hold the passphrase of a role's
// keys: that of Docker, and that of the notary client.
func Variables(role string) []string {
	switch role {
	case RoleRoot:
		return []string{"DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "NOTARY_ROOT_PASSPHRASE"}
	case RoleTargets:
		return []string{"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_TARGETS_PASSPHRASE"}
	case RoleSnapshot:
		return []string{"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_SNAPSHOT_PASSPHRASE"}
	default:
		return []string{"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"}
	}
}

// set returns the variables of a role that are set.
func (p *Passphrases) set(role string) []string {
	var names []string
	for _, name := range Variables(role) {
		if p.Getenv != nil && p.Getenv(name) != "" {
			names = append(names, name)
		}
	}
	return names
}

// unlock opens a key. It tries the variables first, then what is typed. Only a wrong passphrase
// leads to another attempt.
func (p *Passphrases) unlock(ctx context.Context, k Key, b privateBlock,
	open func(Key, privateBlock, []byte) (*Signer, error)) (*Signer, error) {
	defer b.wipe()
	if !k.Encrypted {
		return open(k, b, nil)
	}
	variables := p.set(k.Role)
	for _, name := range variables {
		passphrase := []byte(p.Getenv(name))
		signer, err := open(k, b, passphrase)
		clear(passphrase)
		if !errors.Is(err, ErrPassphrase) {
			return signer, err
		}
	}
	if p.Terminal == nil && len(variables) > 0 {
		return nil, fmt.Errorf("%w: the value of %s does not decrypt the %s; correct the variable", ErrPassphrase,
			strings.Join(variables, " or "), k.label())
	}
	if p.Terminal == nil {
		return nil, fmt.Errorf("the %s is encrypted and there is no terminal to type its passphrase; set %s",
			k.label(), strings.Join(Variables(k.Role), " or "))
	}
	prompt := fmt.Sprintf("Passphrase of the %s: ", k.label())
	for range maxAttempts {
		passphrase, err := p.Terminal.ReadPassword(ctx, prompt)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase of the %s: %w", k.label(), err)
		}
		signer, err := open(k, b, bytes.TrimSpace(passphrase))
		clear(passphrase)
		if !errors.Is(err, ErrPassphrase) {
			return signer, err
		}
		prompt = fmt.Sprintf("The passphrase is wrong. Passphrase of the %s: ", k.label())
	}
	return nil, fmt.Errorf("%w: %d attempts did not decrypt the %s", ErrPassphrase, maxAttempts, k.label())
}

// create returns the passphrase of a new key. The caller overwrites it.
func (p *Passphrases) create(ctx context.Context, k Key) ([]byte, error) {
	label := "new " + k.label()
	variables := p.set(k.Role)
	if len(variables) > 1 && p.Getenv(variables[0]) != p.Getenv(variables[1]) {
		return nil, fmt.Errorf("%s and %s differ, and the %s has one passphrase; unset one of them", variables[0],
			variables[1], label)
	}
	if len(variables) > 0 {
		passphrase := []byte(p.Getenv(variables[0]))
		if utf8.RuneCount(passphrase) < minPassphrase {
			clear(passphrase)
			return nil, fmt.Errorf("%s is too short: the passphrase of a new key has at least %d characters",
				variables[0], minPassphrase)
		}
		return passphrase, nil
	}
	if p.Terminal == nil {
		return nil, fmt.Errorf("there is no terminal to type the passphrase of the %s; set %s", label,
			strings.Join(Variables(k.Role), " or "))
	}
	note := ""
	for range maxAttempts {
		passphrase, complaint, err := p.typeTwice(ctx, note, label)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase of the %s: %w", label, err)
		}
		if complaint == "" {
			return passphrase, nil
		}
		note = complaint + " "
	}
	return nil, fmt.Errorf("no passphrase for the %s after %d attempts: %s", label, maxAttempts,
		strings.TrimSuffix(strings.ToLower(note), ". "))
}

// typeTwice reads a new passphrase. It returns a complaint in place of one that does not do.
func (p *Passphrases) typeTwice(ctx context.Context, note, label string) (_ []byte, complaint string, err error) {
	first, err := p.Terminal.ReadPassword(ctx, fmt.Sprintf("%sPassphrase of the %s: ", note, label))
	if err != nil {
		return nil, "", err
	}
	defer clear(first)
	passphrase := bytes.TrimSpace(first)
	if utf8.RuneCount(passphrase) < minPassphrase {
		return nil, fmt.Sprintf("The passphrase needs at least %d characters.", minPassphrase), nil
	}
	second, err := p.Terminal.ReadPassword(ctx, fmt.Sprintf("Again, the passphrase of the %s: ", label))
	if err != nil {
		return nil, "", err
	}
	defer clear(second)
	if !bytes.Equal(passphrase, bytes.TrimSpace(second)) {
		return nil, "The two passphrases differ.", nil
	}
	return bytes.Clone(passphrase), "", nil
}

// label names a key for its owner: "root key 1234567", "targets key 1234567 of REPOSITORY",
// "key 1234567 (ci)".
func (k Key) label() string {
	id := k.File
	if k.ID != "" {
		id = k.ID[:min(len(k.ID), minPrefix)]
	}
	switch {
	case k.Role == RoleRoot:
		return "root key " + id
	case repositoryRole(k.Role):
		return fmt.Sprintf("%s key %s of %s", k.Role, id, k.GUN)
	default:
		return fmt.Sprintf("key %s (%s)", id, k.Role)
	}
}
