# The commands of lines_app.py on Net::Server::PreFork: prefork.pl PORT MIN MAX MIN_SPARE MAX_SPARE
use strict;
use warnings;

package Lines;
use parent 'Net::Server::PreFork';

my ($port, $min, $max, $min_spare, $max_spare) = @ARGV;

sub pre_loop_hook { print STDERR "ready\n" }

sub process_request {
    while (my $line = <STDIN>) {
        if ($line =~ /^ADD (-?\d+) (-?\d+)\r?\n/) {
            print $1 + $2, "\n";
        } elsif ($line =~ /^SLEEP (\d+)\r?\n/) {
            select(undef, undef, undef, $1 / 1000);
            print "OK\n";
        } else {
            print "ERROR unknown command\n";
        }
    }
}

Lines->run(
    host              => '127.0.0.1',
    port              => $port,
    ipv               => 4,
    listen            => 1024,
    min_servers       => $min,
    max_servers       => $max,
    min_spare_servers => $min_spare,
    max_spare_servers => $max_spare,
    log_level         => 1,
);
