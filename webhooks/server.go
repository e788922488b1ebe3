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

// drainTimeout is how long a shutdown waits for the requests in flight. The API server waits no
// longer for an answer.
const drainTimeout = 10 * time.Second

// ServerOptions are the settings of a Server.
type ServerOptions struct {
	// Port is where it listens, on every interface.
	Port int
	// Certificate returns the serving certificate.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ShutdownDelay is for how long it answers after it has begun to leave. It must be long enough
	// for the endpoints of the Service to change everywhere.
	ShutdownDelay time.Duration
	// Limits bound connections and requests.
	Limits Limits
	// Contact, where set, reports that the replica has lost contact with the API server.
	Contact *Contact
	// Clients, where set, verifies client certificates: a client without one gets 401, and with one
	// that does not verify the handshake fails. Where it is nil, every client is answered.
	Clients *certs.ClientCA
	// Metrics counts refused requests; nil counts nothing.
	Metrics *metrics.Metrics
}

// Server serves admission, and shuts down without losing a request. The manager starts it but does
// not stop it: when the manager ends, by a signal or a lost lease, Leave takes the replica out of
// service first.
//
// A Service picks a replica for each connection, and an API server keeps a connection while it is
// open. So a replica that leaves must also close the connections that are already open.
type Server struct {
	webhook.Server // holds the handlers

	options ServerOptions
	address string
	tls     *tls.Config
	conns   *port.Conns
	http    *http.Server
	log     *serverLog

	started, leaving atomic.Bool
	closeBefore      atomic.Pointer[time.Time] // connections accepted before it are closed, see TurnAway
	stale            atomic.Bool               // a request came while Contact was lost
	leave            sync.Once
	left             chan struct{} // closed when Leave is done
}

// NewServer returns a server, which does not listen yet.
func NewServer(o ServerOptions) *Server {
	limits := o.Limits
	s := &Server{
		Server:  webhook.NewServer(webhook.Options{}),
		options: o,
		address: net.JoinHostPort("", fmt.Sprint(o.Port)),
		conns:   port.NewConns(limits.Connections, limits.HTTP2, limits.Handshakes),
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: o.Certificate,
			GetConfigForClient: port.BeginHandshake,
		},
		log:  newServerLog(ctrl.Log.WithName("admission")),
		left: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler: s,
		// No request's context ends with the manager's context: requests in flight are answered.
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(port.WithConn(ctx, c), verifiedKey{}, new(atomic.Pointer[certs.VerifiedClient]))
		},
		MaxHeaderBytes: maxHeader,
		IdleTimeout:    90 * time.Second,
		ReadTimeout:    limits.Read, // for each stream over HTTP/2
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

// SetupWithManager adds the server, the parts that it rests on, and its health checks to the
// manager.
func (s *Server) SetupWithManager(mgr manager.Manager) error {
	errs := []error{mgr.Add(s)}
	if s.options.Clients != nil {
		errs = append(errs, mgr.Add(s.options.Clients),
			mgr.AddReadyzCheck("client-ca", func(*http.Request) error { return s.options.Clients.Ready() }))
	}
	if s.options.Contact != nil {
		errs = append(errs, mgr.Add(s.options.Contact))
	}
	return errors.Join(append(errs,
		mgr.AddHealthzCheck("webhook", s.StartedChecker()),
		mgr.AddReadyzCheck("webhook", s.StartedChecker()),
		mgr.AddReadyzCheck("stays", s.Ready))...)
}

// verifiedKey is the context key for the result of verifying a connection's client certificate.
type verifiedKey struct{}

// Start implements manager.Runnable. The end of ctx calls Leave, and Start returns when Leave is
// done.
func (s *Server) Start(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.address) //nolint:noctx // as tls.Listen
	if err != nil {
		return fmt.Errorf("listening for admission requests: %w", err)
	}
	return s.serveOn(ctx, listener)
}

// serveOn is Start with a given listener, which it closes.
func (s *Server) serveOn(ctx context.Context, listener net.Listener) error {
	if s.options.Clients != nil {
		s.tls.ClientAuth = tls.RequestClientCert // not required here: ServeHTTP answers a client without one with 401
		s.tls.VerifyConnection = s.verifyPresented
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

// ServeHTTP answers a request. It closes the connection after the answer if the connection is older
// than the last TurnAway, or if the contact with the API server is lost.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := port.ConnOf(r.Context())
	if conn != nil && r.ProtoMajor == 2 && !conn.HTTP2() {
		s.options.Metrics.Refused(metrics.RefusedConnections)
		_ = conn.Close() // requests are being decided on all the others
		return
	}
	if t := s.closeBefore.Load(); conn != nil && t != nil && conn.Accepted().Before(*t) {
		w.Header().Set("Connection", "close") // over HTTP/2: GOAWAY, and streams in flight are still answered
	}
	if s.contactLost() {
		s.stale.Store(true)
		w.Header().Set("Connection", "close")
	}
	if err := s.verify(r); err != nil {
		s.options.Metrics.Refused(metrics.RefusedClient)
		unverified(w, err)
		return
	}
	s.WebhookMux().ServeHTTP(w, r)
}

// verify returns nil if the client of a request may be answered.
func (s *Server) verify(r *http.Request) error {
	if s.options.Clients == nil {
		return nil
	}
	if r.TLS == nil {
		return errors.New("the connection is not encrypted")
	}
	known, ok := r.Context().Value(verifiedKey{}).(*atomic.Pointer[certs.VerifiedClient])
	if !ok {
		known = new(atomic.Pointer[certs.VerifiedClient])
	}
	verified, err := s.options.Clients.Verify(r.TLS.PeerCertificates, known.Load())
	known.Store(verified)
	return err
}

// verifyPresented fails a handshake with a client certificate that does not verify. Otherwise the
// parsed certificate, many times its size, would stay in memory as long as the connection.
func (s *Server) verifyPresented(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	_, err := s.options.Clients.Verify(state.PeerCertificates, nil)
	if err != nil && !errors.Is(err, certs.ErrNoClientCA) {
		s.options.Metrics.Refused(metrics.RefusedClient)
		return err
	}
	return nil
}

// unverified answers a client that is not verified, without reading the body.
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

// TurnAway closes each connection that is open now after its next answer, so that the Service sends
// the client to a replica that is ready. A client that connects again has no other replica, and is
// served.
func (s *Server) TurnAway() { s.closeBefore.Store(new(time.Now())) }

// Ready returns an error once the replica leaves. It also returns an error if a request came while
// the contact with the API server was lost: another replica, which has contact, should answer. If
// no request came, the API server may be down for all replicas, and they must be ready when it is
// back.
func (s *Server) Ready(*http.Request) error {
	switch {
	case s.leaving.Load():
		return errors.New("the replica is shutting down")
	case !s.contactLost():
		s.stale.Store(false)
	case s.stale.Load():
		return fmt.Errorf("the API server has not answered for %s, so the replica's policies may be stale",
			outOfTouch)
	}
	return nil
}

func (s *Server) contactLost() bool { return s.options.Contact != nil && s.options.Contact.Lost() }

// Leave takes the replica out of service, and returns when that is done. The replica reports that
// it is not ready, and answers for the shutdown delay. Halfway through the delay it closes the open
// connections with TurnAway. At the end it waits at most 10 s for the requests in flight. Leave may
// be called more than once, and at any time.
func (s *Server) Leave() {
	s.leave.Do(func() {
		defer close(s.left)
		s.leaving.Store(true)
		log := ctrl.Log.WithName("admission")
		if s.started.Load() {
			log.Info("Reported not ready, and kept answering", "delay", s.options.ShutdownDelay)
			<-time.After(s.options.ShutdownDelay / 2)
			s.TurnAway()
			<-time.After(s.options.ShutdownDelay - s.options.ShutdownDelay/2)
		}
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			log.Error(err, "Could not answer all requests in flight")
			return
		}
		log.Info("Answered all requests in flight")
	})
}

// StartedChecker returns a check that admission is served. It sends no request to the port: a
// server that fails ends the manager.
func (s *Server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.started.Load() {
			return errors.New("admission is not served yet")
		}
		return nil
	}
}
