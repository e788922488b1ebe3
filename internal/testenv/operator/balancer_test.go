package operator

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// TestBalancer checks that the balancer uses a manager when Add returns, stops when the manager
// reports that it is not ready, and continues when a probe gets no response.
func TestBalancer(t *testing.T) {
	const ready, hangs, notReady = 0, 1, 2
	var state atomic.Int32
	hung := make(chan struct{}, 100)
	health := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch state.Load() {
		case hangs:
			hung <- struct{}{}
			<-r.Context().Done()
		case notReady:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer health.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "here")
			conn.Close()
		}
	}()
	b := RunBalancer(t)
	connects := func() error {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(b.URL, "https://"), time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		if text, err := io.ReadAll(conn); string(text) != "here" {
			return errors.Join(err, errors.New("no manager behind it"))
		}
		return nil
	}
	if connects() == nil {
		t.Error("got a connection through a balancer without managers")
	}
	standIn, err := process.Start("sleep", t.TempDir(), nil, "/bin/sleep", "600") // in place of a manager
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = standIn.Kill() }()
	m := &Manager{
		Process:    standIn,
		WebhookURL: "https://" + listener.Addr().String(), health: strings.TrimPrefix(health.URL, "http://"),
	}
	b.Add(m)
	if err := connects(); err != nil {
		t.Errorf("got %v after Add, want a connection", err)
	}
	state.Store(hangs)
	<-hung
	<-hung // the first probe is over
	if err := connects(); err != nil {
		t.Errorf("got %v after a probe without a response, want a connection", err)
	}
	for state.Store(notReady); len(hung) > 0; <-hung {
	}
	poll.Await(t, "the balancer to stop using a manager that is not ready", func() error {
		if connects() == nil {
			return errors.New("it still uses the manager")
		}
		return nil
	})
	state.Store(ready)
	poll.Await(t, "the balancer to use a manager that is ready again", connects)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	poll.Await(t, "the balancer to stop using a manager that has ended", func() error {
		if connects() == nil {
			return errors.New("it still uses the manager")
		}
		return nil
	})
}
