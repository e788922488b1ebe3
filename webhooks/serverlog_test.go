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

// lines collects the lines of a log.
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

// Failed handshakes are logged in the manager's log up to the rate limit, and counted above it.
func TestThreatFailedHandshakesDoNotFloodTheLog(t *testing.T) {
	const burst, failed = 3, 20
	s := prepareServer(t, ServerOptions{})
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
			return fmt.Errorf("%d errors are dropped, want %d", n, failed-burst)
		}
		return nil
	})
	got := log.all()
	if len(got) != burst || !strings.Contains(got[0], "TLS handshake error") {
		t.Errorf("got %d log lines, want %d about handshakes: %q", len(got), burst, got)
	}
}

// A log line says how many errors were dropped before it, and its length is limited.
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
		t.Errorf("got %q, want two lines, the second with two dropped before it", got)
	}
}
