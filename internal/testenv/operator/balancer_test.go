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

// TestBalancer wants a manager to have its turn when Add returns, to lose it when it says that it
// is not ready, and to keep it when it says nothing.
func TestBalancer(t *testing.T) {
	const ready, hangs, leaves = 0, 1, 2
	var state atomic.Int32
	hung := make(chan struct{}, 100)
	health := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch state.Load() {
		case hangs:
			hung <- struct{}{}
			<-r.Context().Done()
		case leaves:
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
	passes := func() error {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(b.URL, "https://"), time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		if text, err := io.ReadAll(conn); string(text) != "here" {
			return errors.Join(err, errors.New("there is nobody behind it"))
		}
		return nil
	}
	if passes() == nil {
		t.Error("a balancer without managers leads somewhere")
	}
	stands, err := process.Start("sleep", t.TempDir(), nil, "/bin/sleep", "600") // in for a manager
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stands.Kill() }()
	m := &Manager{
		Process:    stands,
		WebhookURL: "https://" + listener.Addr().String(), health: strings.TrimPrefix(health.URL, "http://"),
	}
	b.Add(m)
	if err := passes(); err != nil {
		t.Errorf("when Add has returned: %v", err)
	}
	state.Store(hangs)
	<-hung
	<-hung // the one before is over
	if err := passes(); err != nil {
		t.Errorf("after a probe without an answer: %v", err)
	}
	for state.Store(leaves); len(hung) > 0; <-hung {
	}
	poll.Await(t, "a manager that is not ready to lose its turn", func() error {
		if passes() == nil {
			return errors.New("it is asked still")
		}
		return nil
	})
	state.Store(ready)
	poll.Await(t, "a manager that is ready again to have its turn", passes)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	poll.Await(t, "a manager that has ended to lose its turn", func() error {
		if passes() == nil {
			return errors.New("it is asked still")
		}
		return nil
	})
}
