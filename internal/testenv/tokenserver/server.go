// Package tokenserver runs a token service, as the distribution protocol's token authentication
// has it. It runs in the test process.
package tokenserver

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Issuer is the issuer of the tokens.
const Issuer = "countersign-test-tokens"

// Auth are the credentials of a server, and what needs none.
type Auth struct {
	// Username and Password allow to push or publish, and to read.
	Username, Password string
	// AnonymousPull allows to read without credentials.
	AnonymousPull bool
	// Readers are further users. Each may read some repositories.
	Readers []Reader
	// Lifetime is the lifetime of a token. Zero: five minutes.
	Lifetime time.Duration
}

// Reader is a user who may read some repositories. As usual with token services, the token for any
// other repository allows nothing, and the registry refuses it.
type Reader struct {
	Username, Password string
	Repositories       []string
}

// Server issues tokens to clients that send the password.
type Server struct {
	// Host is its host and port.
	Host string

	auth     Auth
	audience string
	cert     *tlstest.Certificate
	server   *httptest.Server
	rules    *faultproxy.Rules
	issued   atomic.Int64
}

// Start runs a token service on a free loopback port. ca issues its certificate, which also signs
// the tokens. audience is the name of the service that accepts them.
func Start(ca *tlstest.CA, audience string, auth Auth) (*Server, error) {
	cert, err := ca.Issue(pkix.Name{CommonName: "token-service"})
	if err != nil {
		return nil, err
	}
	s := &Server{auth: auth, audience: audience, cert: cert, rules: faultproxy.NewRules()}
	s.server = httptest.NewUnstartedServer(
		s.rules.Before(func(w http.ResponseWriter, r *http.Request, _ faultproxy.Fault) { s.token(w, r) }))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests make handshakes fail
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	s.server.StartTLS()
	_, port, err := net.SplitHostPort(s.server.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	s.Host = net.JoinHostPort("localhost", port)
	return s, nil
}

// Realm is the URL at which it issues tokens.
func (s *Server) Realm() string { return "https://" + s.Host + "/token" }

// Stop ends it, and the requests that hang in it. s may be nil.
func (s *Server) Stop() {
	if s != nil {
		s.rules.Stop()
		s.server.Close()
	}
}

// SetFaults replaces its faults. It ignores the fields that change its own response: Old, Cut,
// Truncate and Corrupt, and Header without Status.
func (s *Server) SetFaults(faults ...faultproxy.Fault) { s.rules.Set(faults) }

// Issued returns the number of tokens that it has issued. s may be nil.
func (s *Server) Issued() int64 {
	if s == nil {
		return 0
	}
	return s.issued.Load()
}

// Token returns a token that allows to pull a repository.
func (s *Server) Token(repository string) (string, error) {
	return s.sign([]map[string]any{{"type": "repository", "name": repository, "actions": []string{"pull"}}})
}

// token answers GET /token?service=...&scope=repository:<name>:<actions>.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	known := given && same(user, password, s.auth.Username, s.auth.Password)
	reader := s.reader(user, password)
	if r.URL.Path != "/token" || given && !known && reader == nil || !given && !s.auth.AnonymousPull {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`,
			http.StatusUnauthorized)
		return
	}
	var access []map[string]any
	for _, scope := range r.URL.Query()["scope"] {
		// The name may contain a port, and so a colon.
		kind, rest, _ := strings.Cut(scope, ":")
		last := strings.LastIndex(rest, ":")
		if last < 0 || reader != nil && !slices.Contains(reader.Repositories, rest[:last]) {
			continue
		}
		actions := strings.Split(rest[last+1:], ",")
		if !known {
			actions = []string{"pull"}
		}
		access = append(access, map[string]any{"type": kind, "name": rest[:last], "actions": actions})
	}
	token, err := s.sign(access)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.issued.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": int(s.lifetime().Seconds())})
}

// reader returns the reader with a name and a password; nil: there is none.
func (s *Server) reader(username, password string) *Reader {
	for i := range s.auth.Readers {
		if r := &s.auth.Readers[i]; same(username, password, r.Username, r.Password) {
			return r
		}
	}
	return nil
}

func same(username, password, wantUsername, wantPassword string) bool {
	return subtle.ConstantTimeCompare([]byte(username+"\x00"+password), []byte(wantUsername+"\x00"+wantPassword)) == 1
}

func (s *Server) lifetime() time.Duration {
	if s.auth.Lifetime > 0 {
		return s.auth.Lifetime
	}
	return 5 * time.Minute
}

// sign makes an ES256 JSON web token (RFC 7515) with the signer's certificate in its header.
func (s *Server) sign(access []map[string]any) (string, error) {
	now := time.Now()
	header, err := json.Marshal(map[string]any{
		"typ": "JWT", "alg": "ES256",
		"x5c": []string{base64.StdEncoding.EncodeToString(s.cert.TLS.Certificate[0])},
	})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": Issuer, "aud": s.audience, "sub": s.auth.Username, "access": access, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(s.lifetime()).Unix(),
	})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(header) + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	key, ok := s.cert.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("token key is %T, not ecdsa", s.cert.TLS.PrivateKey)
	}
	r, v, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return "", err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return signed + "." + encode(sig), nil
}
