package webhooks

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"golang.org/x/time/rate"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// lines is a log whose lines the test reads.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) write(_, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, args)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.text...)
}

// Handshakes that fail are logged in bounded number, through the manager's log, and counted beyond
// that.
func TestThreatFailedHandshakesDoNotFloodTheLog(t *testing.T) {
	const burst, failed = 3, 20
	s := prepareServer(t, 0, patient())
	log := new(lines)
	s.log.log, s.log.limiter = funcr.New(log.write, funcr.Options{}), rate.NewLimiter(rate.Every(time.Hour), burst)
	s.serve(t)
	for range failed {
		if _, err := s.dial(t, stranger).Write([]byte("no handshake\n")); err != nil {
			t.Fatal(err)
		}
	}
	poll.Await(t, "all handshakes to fail", func() error {
		if n := s.log.dropped.Load(); n < failed-burst {
			return fmt.Errorf("%d reports are dropped", n)
		}
		return nil
	})
	got := log.all()
	if len(got) != burst || !strings.Contains(got[0], "TLS handshake error") {
		t.Errorf("%d lines: %q", len(got), got)
	}
}

// What is passed on says how many reports were dropped before it, and is bounded.
func TestServerLog(t *testing.T) {
	log := new(lines)
	l := newServerLog(funcr.New(log.write, funcr.Options{}))
	l.limiter = rate.NewLimiter(rate.Every(time.Hour), 1)
	out := slog.NewLogLogger(l, slog.LevelInfo)
	for range 3 {
		out.Print(strings.Repeat("x", 2*maxLine))
	}
	l.limiter = rate.NewLimiter(rate.Every(time.Hour), 1)
	out.Print("last")
	got := log.all()
	if len(got) != 2 || len(got[0]) > maxLine+200 || !strings.Contains(got[1], `"report"="last" "droppedBefore"=2`) {
		t.Errorf("%q", got)
	}
}
