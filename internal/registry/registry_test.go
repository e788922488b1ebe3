package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/trust"
)

func TestNewRefusesUnusableSettings(t *testing.T) {
	ca := newCA(t)
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"no server":       {Config{}, "server:"},
		"no host":         {Config{Server: "https://"}, "server:"},
		"user in the URL": {Config{Server: "https://user:" + password + "@notary.example.com"}, "server:"},
		"query":           {Config{Server: "https://notary.example.com?x=y"}, "server:"},
		"other scheme":    {Config{Server: "ftp://notary.example.com"}, "neither an https nor an http"},
		"http":            {Config{Server: "http://notary.example.com"}, "not encrypted"},
		"credentials over http": {
			Config{Server: "http://notary.example.com", PlainHTTP: true, Username: "u", Password: password},
			"credentials are sent over https only",
		},
		"bundle without PEM": {Config{Server: "https://notary.example.com", CABundle: "hello"}, "caBundle"},
		"bundle with rubbish": {
			Config{
				Server:   "https://notary.example.com",
				CABundle: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
			}, "certificate 1",
		},
		"bundle with a key": {
			Config{
				Server:   "https://notary.example.com",
				CABundle: string(ca.PEM) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
			}, "private key",
		},
		"token service with URL": {
			Config{Server: "https://notary.example.com", TokenServices: []string{"https://auth.example.com"}},
			"tokenServices",
		},
		"token service, path": {
			Config{Server: "https://notary.example.com", TokenServices: []string{"auth.example.com/token"}},
			"tokenServices",
		},
		"token service, user": {
			Config{Server: "https://notary.example.com", TokenServices: []string{"me@auth.example.com"}},
			"tokenServices",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), password) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestGet(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, answer(http.StatusOK, "application/json", `{"signed":{}}`))
	for name, base := range map[string]string{"host": s.URL, "final slash": s.URL + "/", "path": s.URL + "/notary"} {
		t.Run(name, func(t *testing.T) {
			body, err := newClient(t, Config{Server: base, CABundle: string(ca.PEM)}).Get(t.Context(), repository,
				file, 13)
			if err != nil || string(body) != `{"signed":{}}` {
				t.Fatalf("got %q, %v", body, err)
			}
			u, err := url.Parse(strings.TrimRight(base, "/") + file)
			if err != nil {
				t.Fatal(err)
			}
			all := s.seen()
			if last := all[len(all)-1]; last.URL.Path != u.Path || last.Header.Get("Authorization") != "" {
				t.Errorf("got request %s with %q, want %s", last.URL, last.Header.Get("Authorization"), u.Path)
			}
		})
	}
	t.Run("plain http where allowed", func(t *testing.T) {
		s := servePlain(t, answer(http.StatusOK, "application/json", `{}`))
		if _, err := newClient(t, Config{Server: s.URL, PlainHTTP: true}).Get(t.Context(), repository, file,
			10); err != nil {
			t.Error(err)
		}
	})
	for name, path := range map[string]string{
		"traversal": "/v2/../../admin", "traversal at the end": "/v2/x/..", "relative": "v2/x",
		"empty segment": "/v2//x",
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.seen())
			_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository,
				path, 100)
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, path)
			if len(s.seen()) != before {
				t.Error("got a request at the server")
			}
		})
	}
}

func TestAnswersThatAreNotSuccess(t *testing.T) {
	const page = "<!DOCTYPE html><title>Sign in</title>"
	tests := map[string]struct {
		handler http.HandlerFunc
		reason  string // empty: not found
		words   string
	}{
		"not found": {
			answer(404, "application/json", `{"errors":[{"code":"METADATA_NOT_FOUND"}]}`), "", "root.json",
		},
		"404 of another program": {
			answer(404, "text/plain", "404 page not found"), v1alpha1.ReasonUnexpectedAnswer, "check the server's URL",
		},
		"404 with other JSON": {
			answer(404, "application/json", `{"message":"no route"}`), v1alpha1.ReasonUnexpectedAnswer,
			"check the server's URL",
		},
		"404 with empty errors": {
			answer(404, "application/json", `{"errors":[]}`), v1alpha1.ReasonUnexpectedAnswer, "check the server's URL",
		},
		"404 with foreign errors": {
			answer(404, "application/json", `{"errors":[{}]}`), v1alpha1.ReasonUnexpectedAnswer,
			"check the server's URL",
		},
		"404 web page": {answer(404, "text/html", page), v1alpha1.ReasonUnexpectedAnswer, "web page"},
		"web page": {
			answer(200, "text/html; charset=utf-8", page), v1alpha1.ReasonUnexpectedAnswer, "web page",
		},
		"web page called JSON": {
			answer(200, "application/json", "\n "+page), v1alpha1.ReasonUnexpectedAnswer, "web page",
		},
		"no content": {answer(204, "", ""), v1alpha1.ReasonUnexpectedAnswer, "204"},
		"forbidden":  {answer(403, "application/json", `{}`), v1alpha1.ReasonUnauthorized, "403"},
		"401 without a challenge": {
			answer(401, "application/json", `{}`), v1alpha1.ReasonUnauthorized, "authentication",
		},
		"too many requests":      {answer(429, "", ""), v1alpha1.ReasonServerError, "429"},
		"bad request":            {answer(400, "", ""), v1alpha1.ReasonServerError, "400"},
		"internal error":         {answer(500, "", ""), v1alpha1.ReasonServerError, "500"},
		"bad gateway's web page": {answer(502, "text/html", page), v1alpha1.ReasonServerError, "502"},
		"redirect loop": {
			func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) },
			v1alpha1.ReasonUnexpectedAnswer, "too many redirects",
		},
		"redirect to plain http": {
			func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://"+r.Host+"/", 302) },
			v1alpha1.ReasonUnexpectedAnswer, "from https to http",
		},
		"redirect to another host": {
			func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://127.0.0.1:1/x?t=1", 302) },
			v1alpha1.ReasonUnexpectedAnswer, "another host",
		},
		"connection broken off": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, v1alpha1.ReasonUnreachable,
			"closed the connection",
		},
		"body broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "50")
			_, _ = w.Write([]byte("{"))
		}, v1alpha1.ReasonUnreachable, "complete"},
		"endless header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
		}, v1alpha1.ReasonUnreachable, "header"},
	}
	ca := newCA(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ca, tt.handler)
			s.Config.ErrorLog = nil
			c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password})
			body, err := c.Get(t.Context(), repository, file, 1000)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, tt.words)
				if errors.Is(err, trust.ErrNotFound) {
					t.Errorf("got %v as a not-found error of the protocol, want another fault", err)
				}
			} else if !errors.Is(err, trust.ErrNotFound) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want not found", err)
			}
			if err != nil && !strings.Contains(err.Error(), s.Host) {
				t.Errorf("got message %v, want it to name the server", err)
			}
			if err == nil {
				t.Errorf("got body %q", body)
			}
		})
	}
}

func TestSizeIsBounded(t *testing.T) {
	ca := newCA(t)
	const limit = 1000
	body := strings.Repeat("x", limit)
	tests := map[string]struct {
		handler http.HandlerFunc
		fits    bool
	}{
		"exactly the limit":             {answer(200, "", body), true},
		"announced to be one byte more": {answer(200, "", body+"x"), false},
		"streamed, one byte more": {
			func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); w.Write([]byte(body + "x")) },
			false,
		},
		"endless":                   {endless, false},
		"announced, and never sent": {announceOnly, false},
		"compressed without a request for it": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte(body))
		}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ca, tt.handler)
			got, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository,
				file, limit)
			if !tt.fits {
				wantFault(t, err, v1alpha1.ReasonTooLarge, strconv.Itoa(limit))
			} else if err != nil || string(got) != body {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

// endless writes until the client closes the connection.
func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat("x", 64<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// announceOnly announces a large body, and waits until the client closes the connection.
func announceOnly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "1000000")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func TestTimeIsBounded(t *testing.T) {
	ca := newCA(t)
	slow := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, handler := range map[string]http.HandlerFunc{"slow body": slow, "no answer": silent} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ca, handler)
			start := time.Now()
			c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Timeout: 200 * time.Millisecond})
			_, err := c.Get(t.Context(), repository, file, 1<<20)
			wantFault(t, err, v1alpha1.ReasonTimeout, "in time")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want an exceeded deadline", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("got a duration of %s", took)
			}
		})
		t.Run(name+", caller's deadline", func(t *testing.T) {
			s := serve(t, ca, handler)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Timeout: time.Minute}).Get(ctx,
				repository, file, 1<<20)
			wantFault(t, err, v1alpha1.ReasonTimeout)
		})
	}
	t.Run("caller gives up", func(t *testing.T) {
		s := serve(t, ca, silent)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(ctx, repository, file, 1<<20)
		wantFault(t, err, v1alpha1.ReasonTimeout, "cancelled before")
	})
}

func TestConnectionFaultsSayWhatIsWrong(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	ok := answer(http.StatusOK, "application/json", `{}`)
	closed, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	unsigned := httptest.NewTLSServer(ok) // a certificate of an unknown authority, valid until 2084
	t.Cleanup(unsigned.Close)
	clientCert := serve(t, ca, ok)
	clientCert.TLS.ClientAuth = tls.RequireAnyClientCert
	// a label that is too long for DNS, so that no request to a name server delays the test
	long := "notary." + strings.Repeat("x", 64) + ".invalid"

	tests := map[string]struct {
		server string
		ca     string
		reason string
		words  []string
	}{
		"unknown authority": {
			serve(t, other, ok).URL, string(ca.PEM), v1alpha1.ReasonTLSNotTrusted,
			[]string{"unknown authority", "caBundle"},
		},
		"not the system's": {
			unsigned.URL, "", v1alpha1.ReasonTLSNotTrusted, []string{"unknown authority", "caBundle"},
		},
		"wrong name": {
			serve(t, ca, ok, "notary.example.com").URL, string(ca.PEM), v1alpha1.ReasonTLSNotTrusted,
			[]string{"another name", "notary.example.com", "localhost"},
		},
		"wrong address": {
			strings.Replace(serve(t, ca, ok, "10.1.2.3").URL, "localhost", "127.0.0.1", 1), string(ca.PEM),
			v1alpha1.ReasonTLSNotTrusted, []string{"another name", "10.1.2.3"},
		},
		"client certificate": {
			clientCert.URL, string(ca.PEM), v1alpha1.ReasonTLSNotTrusted, []string{"clientCertificateSecretRef"},
		},
		"no TLS": {
			"https://" + servePlain(t, ok).Host, string(ca.PEM), v1alpha1.ReasonUnexpectedAnswer,
			[]string{"does not speak TLS"},
		},
		"refused": {
			fmt.Sprintf("https://127.0.0.1:%d", closed), string(ca.PEM), v1alpha1.ReasonUnreachable,
			[]string{"refused"},
		},
		"no such name": {
			"https://" + long, string(ca.PEM), v1alpha1.ReasonUnreachable, []string{long, "resolved"},
		},
		"link-local": {
			"https://169.254.169.254", string(ca.PEM), v1alpha1.ReasonAddressRefused,
			[]string{"169.254.169.254", "link-local"},
		},
		"link-local, mapped": {
			"https://[::ffff:169.254.169.254]", string(ca.PEM), v1alpha1.ReasonAddressRefused, []string{"link-local"},
		},
		"metadata over IPv6": {
			"https://[fd00:ec2::254]", string(ca.PEM), v1alpha1.ReasonAddressRefused, []string{"metadata"},
		},
		"unspecified address": {
			"https://0.0.0.0:4443", string(ca.PEM), v1alpha1.ReasonAddressRefused, []string{"unspecified"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, Config{Server: tt.server, CABundle: tt.ca, Username: "reader", Password: password})
			_, err := c.Get(t.Context(), repository, file, 1000)
			wantFault(t, err, tt.reason, tt.words...)
		})
	}
}
