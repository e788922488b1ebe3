package webhooks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/text"
)

// drainTimeout bounds the wait for the requests that are under way at the end: none is waited for
// longer by the API server.
const drainTimeout = 10 * time.Second

// Server serves admission, and leaves in such a way that no request is lost. The manager starts it
// and does not end it: whatever ends the manager, a signal or a lost lease, Leave takes the replica
// out of service first. A Service picks a replica for each connection, and an API server keeps its
// connection for as long as it is open. So a replica that is no longer to be asked has to say so on
// the connections that are there already.
type Server struct {
	webhook.Server // holds the handlers

	// Contact, where set, tells when the replica has lost touch with the API server.
	Contact *Contact
	// Clients, where set, verifies the certificate of whoever asks; who shows none is answered with
	// 401, and with one that is not good the handshake fails. Where it is nil, anybody is answered.
	Clients *certs.ClientCA
	// Metrics counts what is refused; nil counts nothing.
	Metrics *metrics.Metrics

	delay   time.Duration
	address string
	tls     *tls.Config
	conns   *port.Conns
	http    *http.Server
	log     *serverLog

	started, leaving atomic.Bool
	turned           atomic.Pointer[time.Time]
	stale            atomic.Bool // asked while out of touch
	leave            sync.Once
	left             chan struct{} // closed when Leave is done
}

// NewServer returns a server for the port of a number, on every interface. It goes on answering for
// delay after it has begun to leave, which must be long enough for the endpoints of the Service to
// change everywhere.
func NewServer(number int, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), delay time.Duration,
	limits Limits) *Server {
	s := &Server{
		Server:  webhook.NewServer(webhook.Options{}),
		delay:   delay,
		address: net.JoinHostPort("", fmt.Sprint(number)),
		conns:   port.NewConns(limits.Connections, limits.HTTP2, limits.Handshakes),
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: certificate,
			GetConfigForClient: port.BeginHandshake,
		},
		log:  newServerLog(ctrl.Log.WithName("admission")),
		left: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler: s,
		// No request's context ends with the manager's: what is under way is answered.
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(port.WithConn(ctx, c), verifiedKey{}, new(atomic.Pointer[certs.VerifiedClient]))
		},
		MaxHeaderBytes: maxHeader,
		IdleTimeout:    90 * time.Second,
		ReadTimeout:    limits.Read, // over HTTP/2 of each stream
		WriteTimeout:   limits.Write,
		ErrorLog:       slog.NewLogLogger(s.log, slog.LevelInfo),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame,
			MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow,
			WriteByteTimeout: limits.Read,
		},
	}
	return s
}

// SetupWithManager has the manager run what the server rests on, and ask it whether the replica is
// well. The manager starts the server itself, as its webhook server. All fields are set before.
func (s *Server) SetupWithManager(mgr manager.Manager) error {
	var errs []error
	if s.Clients != nil {
		errs = append(errs, mgr.Add(s.Clients),
			mgr.AddReadyzCheck("client-ca", func(*http.Request) error { return s.Clients.Ready() }))
	}
	if s.Contact != nil {
		errs = append(errs, mgr.Add(s.Contact))
	}
	return errors.Join(append(errs,
		mgr.AddHealthzCheck("webhook", s.StartedChecker()),
		mgr.AddReadyzCheck("webhook", s.StartedChecker()),
		mgr.AddReadyzCheck("stays", s.Ready))...)
}

// verifiedKey is the key of what is known of the client certificate of a connection.
type verifiedKey struct{}

// Start implements manager.Runnable. It returns when Leave is done, which the end of ctx brings
// about.
func (s *Server) Start(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.address) //nolint:noctx // as tls.Listen
	if err != nil {
		return fmt.Errorf("listening for admission requests: %w", err)
	}
	return s.serveOn(ctx, listener)
}

// serveOn is Start with a listener, which it closes.
func (s *Server) serveOn(ctx context.Context, listener net.Listener) error {
	if s.Clients != nil {
		s.tls.ClientAuth = tls.RequestClientCert // which ServeHTTP verifies, so that whoever has none is told
		s.tls.VerifyConnection = s.verifyShown
	}
	ctrl.LoggerFrom(ctx).Info("Serving admission", "address", listener.Addr().String())
	defer context.AfterFunc(ctx, s.Leave)()
	s.started.Store(true)
	if err := s.http.Serve(tls.NewListener(s.conns.Listener(listener), s.tls)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving admission: %w", err)
	}
	<-s.left
	return nil
}

// ServeHTTP answers a request, and asks for another connection where this one is from before
// TurnAway or the replica is out of touch.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := port.ConnOf(r.Context())
	if conn != nil && r.ProtoMajor == 2 && !conn.HTTP2() {
		s.Metrics.Refused(metrics.RefusedConnections)
		_ = conn.Close() // there are too many that work
		return
	}
	if turned := s.turned.Load(); conn != nil && turned != nil && conn.Accepted().Before(*turned) {
		w.Header().Set("Connection", "close") // over HTTP/2: GOAWAY, and what is under way is still answered
	}
	if s.outOfTouch() {
		s.stale.Store(true)
		w.Header().Set("Connection", "close")
	}
	if err := s.verify(r); err != nil {
		s.Metrics.Refused(metrics.RefusedClient)
		unverified(w, err)
		return
	}
	s.WebhookMux().ServeHTTP(w, r)
}

// verify returns nil where whoever sends a request may be answered.
func (s *Server) verify(r *http.Request) error {
	if s.Clients == nil {
		return nil
	}
	if r.TLS == nil {
		return errors.New("the connection is not encrypted")
	}
	known, ok := r.Context().Value(verifiedKey{}).(*atomic.Pointer[certs.VerifiedClient])
	if !ok {
		known = new(atomic.Pointer[certs.VerifiedClient])
	}
	verified, err := s.Clients.Verify(r.TLS.PeerCertificates, known.Load())
	known.Store(verified)
	return err
}

// verifyShown ends a handshake in which a certificate is shown that is not good: it would be held
// for as long as the connection, and takes many times its size.
func (s *Server) verifyShown(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	if _, err := s.Clients.Verify(state.PeerCertificates, nil); err != nil && !errors.Is(err, certs.ErrNoClientCA) {
		s.Metrics.Refused(metrics.RefusedClient)
		return err
	}
	return nil
}

// unverified answers whoever is not verified, without reading what was sent.
func unverified(w http.ResponseWriter, err error) {
	code := http.StatusUnauthorized
	if errors.Is(err, certs.ErrNoClientCA) {
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Connection", "close")
	http.Error(w,
		"countersign answers API servers with a client certificate of its --webhook-client-ca only: "+
			text.Cut(err.Error(), maxLine), code)
}

// TurnAway ends each connection that is open now with its next answer, so that whoever asks is
// given a replica that is ready. Who comes back has no other, and is served.
func (s *Server) TurnAway() { s.turned.Store(new(time.Now())) }

// Ready returns an error once the replica is about to leave, and while it is asked though it has
// lost touch with the API server: then others, which have not, are to be asked. Where nobody asks,
// the API server is down for all, and they are needed as soon as it is back.
func (s *Server) Ready(*http.Request) error {
	switch {
	case s.leaving.Load():
		return errors.New("the replica is about to end")
	case !s.outOfTouch():
		s.stale.Store(false)
	case s.stale.Load():
		return fmt.Errorf("nothing was heard of the API server for %s, so what the replica decides by may be old",
			outOfTouch)
	}
	return nil
}

func (s *Server) outOfTouch() bool { return s.Contact != nil && s.Contact.Lost() }

// Leave takes the replica out of service, and returns when that is done. From now on it reports
// that it is not ready. It goes on answering for the delay, turns away who is still connected when
// half of that is over, and at last has what is under way answered, for at most 10 seconds. It may
// be called more than once, and at any time.
func (s *Server) Leave() {
	s.leave.Do(func() {
		defer close(s.left)
		s.leaving.Store(true)
		log := ctrl.Log.WithName("admission")
		if s.started.Load() {
			log.Info("Reported not ready, and went on answering", "delay", s.delay)
			<-time.After(s.delay / 2)
			s.TurnAway()
			<-time.After(s.delay - s.delay/2)
		}
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			log.Error(err, "Could not answer everything that was under way")
			return
		}
		log.Info("Answered everything that was under way")
	})
}

// StartedChecker returns a check that admission is served. It does not ask the port: a server that
// fails ends the manager.
func (s *Server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.started.Load() {
			return errors.New("admission is not served yet")
		}
		return nil
	}
}
