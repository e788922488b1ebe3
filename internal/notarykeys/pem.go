package notarykeys

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"
)

// Types of PEM blocks.
const (
	blockEncrypted = "ENCRYPTED PRIVATE KEY"
	blockPKCS8     = "PRIVATE KEY"
	blockEC        = "EC PRIVATE KEY"
	blockRSA       = "RSA PRIVATE KEY"
	blockEd25519   = "ED25519 PRIVATE KEY"
)

// Headers of PEM blocks.
const (
	headerRole = "role"
	headerGUN  = "gun"
	headerPath = "path"
	headerDEK  = "DEK-Info"
)

const (
	// maxFileSize bounds a file of the store. An encrypted RSA key of 8192 bits has 7 KiB.
	maxFileSize = 64 << 10
	// maxImportSize bounds a file of several keys.
	maxImportSize = 4 << 20
	// maxHeader bounds a role and a repository.
	maxHeader = 255
)

// A privateBlock is a private key in PEM.
type privateBlock struct {
	*pem.Block
}

// decodeBlocks reads the private keys of a PEM text. Parameters of elliptic curves, which openssl
// writes before a key, are skipped. Text without a private key is an error.
func decodeBlocks(text []byte) ([]privateBlock, error) {
	var blocks []privateBlock
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		switch b.Type {
		case blockEncrypted, blockPKCS8, blockEC, blockRSA, blockEd25519:
		case "EC PARAMETERS":
			continue
		case "OPENSSH PRIVATE KEY":
			return nil, errors.New("a key of ssh; convert it with 'ssh-keygen -p -m PKCS8 -f FILE'")
		default:
			return nil, fmt.Errorf("PEM block %q is not a private key", b.Type)
		}
		for _, name := range []string{headerRole, headerGUN} {
			if v := b.Headers[name]; !plain(v) {
				return nil, fmt.Errorf("header %s of the private key is not a name", name)
			}
		}
		blocks = append(blocks, privateBlock{b})
	}
	// A block that is cut off is not decoded: it must not look like a smaller file.
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		return nil, errors.New("a PEM block is damaged or cut off")
	}
	if len(blocks) == 0 {
		return nil, errors.New("no PEM block '-----BEGIN PRIVATE KEY-----' or '-----BEGIN ENCRYPTED PRIVATE KEY-----'")
	}
	return blocks, nil
}

// plain reports whether a header may be printed: ASCII without spaces, of bounded length.
func plain(s string) bool {
	return len(s) <= maxHeader && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (b privateBlock) role() string { return b.Headers[headerRole] }
func (b privateBlock) gun() string  { return b.Headers[headerGUN] }

// dek reports whether the block is encrypted in the manner of RFC 1423.
func (b privateBlock) dek() bool { return b.Headers[headerDEK] != "" }

func (b privateBlock) encrypted() bool { return b.Type == blockEncrypted || b.dek() }

// private returns the key of a block in PKCS #8. The passphrase is for encrypted blocks alone.
func (b privateBlock) private(passphrase []byte) ([]byte, error) {
	switch {
	case b.Type == blockEncrypted:
		return decrypt(b.Bytes, passphrase)
	case b.dek():
		//nolint:staticcheck // old key files are encrypted so; the key's ID is checked afterwards
		der, err := x509.DecryptPEMBlock(b.Block, passphrase)
		switch {
		case errors.Is(err, x509.IncorrectPasswordError):
			return nil, ErrPassphrase
		case err != nil:
			return nil, errUnreadableEncryption
		}
		defer clear(der)
		out, err := normalise(b.Type, der)
		if err != nil && !asn1Sequence(der) {
			return nil, ErrPassphrase
		}
		return out, err
	default:
		return normalise(b.Type, b.Bytes)
	}
}

// wipe overwrites the bytes of an unencrypted key.
func (b privateBlock) wipe() {
	if !b.encrypted() {
		clear(b.Bytes)
	}
}

// legacyPath reads what older clients said with the path of a file, below the folder of the keys:
// root_keys/<id>_root, tuf_keys/<gun>/<id>_<role>.
func legacyPath(name string) (id, role, gun string) {
	dir, base := path.Split(path.Clean(strings.TrimLeft(name, "/")))
	id, role, _ = strings.Cut(base, "_")
	if rest, found := strings.CutPrefix(dir, nonRootFolder+"/"); found {
		gun = strings.Trim(rest, "/")
	}
	return id, role, gun
}

// encodePEM returns a block of the store.
func encodePEM(der []byte, headers map[string]string) []byte {
	kept := maps.Clone(headers)
	maps.DeleteFunc(kept, func(_, value string) bool { return value == "" })
	return pem.EncodeToMemory(&pem.Block{Type: blockEncrypted, Bytes: der, Headers: kept})
}

// validName reports whether a name can be that of a signer, as docker trust accepts it.
func validName(name string) bool {
	return len(name) <= maxHeader && regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`).MatchString(name)
}

// validID reports whether a text has the form of a key ID.
func validID(id string) bool {
	return regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id)
}
