package notarysign

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/countersign-dev/countersign/internal/registry"
)

// Settings say where a server is, and how to reach it. Empty fields are read from the variables of
// Docker and of the notary client, and from Docker's folder.
type Settings struct {
	// Server is the URL. Empty: DOCKER_CONTENT_TRUST_SERVER, NOTARY_REMOTE_SERVER_URL,
	// notary.docker.io for Docker Hub, or else the host of the image.
	Server string
	// ServerCA is the file with the CAs of its certificate. Empty: NOTARY_REMOTE_SERVER_ROOT_CA,
	// tls/<host>/ca.crt in Docker's folder, or else the CAs of the system.
	ServerCA string
	// TokenServices are hosts that may issue tokens, beside the server and the image's registry.
	TokenServices []string
	// ReadOnly requests no right to publish.
	ReadOnly bool
	// Getenv reads a variable, as os.Getenv does.
	Getenv func(name string) string
}

// Reached is a server with the settings that were found.
type Reached struct {
	*registry.Client

	URL, CABundle string
}

// Connect returns the client of the server of a repository. It sends nothing.
func (s Settings) Connect(repository string) (*Reached, error) {
	host, _, _ := strings.Cut(repository, "/")
	cfg := registry.Config{
		Server: s.url(host), TokenServices: append([]string{host}, s.TokenServices...), Publishes: !s.ReadOnly,
		CommandLine: true,
	}
	if !strings.Contains(cfg.Server, "://") {
		cfg.Server = "https://" + cfg.Server
	}
	at, err := url.Parse(cfg.Server)
	if err != nil {
		return nil, errors.New("--server is not a URL such as https://notary.example.com")
	}
	if at.Host == "notary.docker.io" {
		cfg.TokenServices = append(cfg.TokenServices, "auth.docker.io")
	}
	if err := s.readTLS(at.Host, &cfg); err != nil {
		return nil, err
	}
	if cfg.Username, cfg.Password, err = s.credentials(repository); err != nil {
		return nil, err
	}
	client, err := registry.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Reached{Client: client, URL: cfg.Server, CABundle: cfg.CABundle}, nil
}

func (s Settings) url(host string) string {
	if host == "docker.io" {
		host = "notary.docker.io"
	}
	return cmp.Or(s.Server, s.Getenv("DOCKER_CONTENT_TRUST_SERVER"), s.Getenv("NOTARY_REMOTE_SERVER_URL"),
		"https://"+host)
}

// readTLS reads the CAs of the server and the client certificate.
func (s Settings) readTLS(host string, cfg *registry.Config) error {
	folder := filepath.Join(s.dockerFolder(), "tls", host)
	for _, f := range []struct {
		into       *string
		named, own string
	}{
		{&cfg.CABundle, cmp.Or(s.ServerCA, s.Getenv("NOTARY_REMOTE_SERVER_ROOT_CA")), "ca.crt"},
		{&cfg.ClientCertificate, s.Getenv("NOTARY_REMOTE_SERVER_TLS_CLIENT_CERT"), "client.cert"},
		{&cfg.ClientKey, s.Getenv("NOTARY_REMOTE_SERVER_TLS_CLIENT_KEY"), "client.key"},
	} {
		text, err := os.ReadFile(cmp.Or(f.named, filepath.Join(folder, f.own)))
		if f.named == "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the TLS files of the Notary server: %w", err)
		}
		*f.into = string(text)
	}
	return nil
}

// dockerFolder returns the folder of Docker's configuration.
func (s Settings) dockerFolder() string {
	if dir := s.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// credentials returns those of NOTARY_AUTH, or those that Docker has for the registry.
func (s Settings) credentials(repository string) (username, password string, err error) {
	if auth := s.Getenv("NOTARY_AUTH"); auth != "" {
		text, err := base64.StdEncoding.DecodeString(auth)
		username, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return "", "", errors.New("NOTARY_AUTH is not the base64 of user:password")
		}
		return username, password, nil
	}
	repo, err := name.NewRepository(repository)
	if err != nil {
		return "", "", fmt.Errorf("%q is not a repository: %w", repository, err)
	}
	a, err := authn.DefaultKeychain.Resolve(repo)
	if err != nil {
		return "", "", fmt.Errorf("reading Docker's credentials for %s: %w", repo.RegistryStr(), err)
	}
	c, err := a.Authorization()
	if err != nil {
		return "", "", fmt.Errorf("reading Docker's credentials for %s: %w", repo.RegistryStr(), err)
	}
	return c.Username, c.Password, nil
}
