package options

import (
	"fmt"
	"io"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// logLevels are the values of --log-level, each with the least severe level that is logged.
var logLevels = map[string]zapcore.Level{"debug": zapcore.DebugLevel, "info": zapcore.InfoLevel, "error": zapcore.ErrorLevel}

// logFormats are the values of --log-format. Both write times as RFC 3339.
var logFormats = map[string]zap.Opts{"json": zap.JSONEncoder(logTimes), "text": zap.ConsoleEncoder(logTimes)}

func logTimes(c *zapcore.EncoderConfig) { c.EncodeTime = zapcore.RFC3339TimeEncoder }

// Logger returns a logger that writes to w as --log-level and --log-format say.
func (o Options) Logger(w io.Writer) logr.Logger {
	return zap.New(zap.WriteTo(w), zap.Level(logLevels[o.LogLevel]), logFormats[o.LogFormat])
}

func (o Options) validateLog() []error {
	var errs []error
	if _, ok := logLevels[o.LogLevel]; !ok {
		errs = append(errs, fmt.Errorf("--log-level=%s: must be debug, info or error", o.LogLevel))
	}
	if _, ok := logFormats[o.LogFormat]; !ok {
		errs = append(errs, fmt.Errorf("--log-format=%s: must be json or text", o.LogFormat))
	}
	return errs
}
