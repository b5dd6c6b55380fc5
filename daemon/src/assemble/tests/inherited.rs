//! What programs get from those that started them.

use super::*;

#[test]
fn a_pipe_that_every_command_of_a_script_inherits_stays_small() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.say(1, opened(1, Channel::Pipe, |r| (r.device, r.inode) = (9, 77)));
    let access = Some(Access { reads: false, writes: true });
    for arena in 2..500 {
        let inherited = vec![Inherited { number: 1, inode: (9, 77), held: true, access }];
        t.assembler.register(arena, facts(arena as u32, 0), true, t.now, inherited);
        t.assembler.gone(arena);
        t.wait(1);
    }
    let key = t.assembler.by_inode[&(9, 77)];
    assert!(t.assembler.objects.get(key).unwrap().uses.len() < 20, "idle users are forgotten");
    assert!(t.assembler.programs.len() < 20);
}
