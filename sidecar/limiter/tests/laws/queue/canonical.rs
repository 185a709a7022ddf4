//! A number that two queues have in common if they are the same, whatever the order in which their maps tell what they hold.

use std::fmt::Debug;

/// Of the debug text, with the parts between each pair of braces in any order.
pub(crate) fn fingerprint(thing: &impl Debug) -> u64 {
    let told = format!("{thing:#?}");
    parts(told.as_bytes(), &mut 0, b' ')
}

/// Of the parts from here to the end, or to what closes this pair; the order of lists counts, that of maps and fields does
/// not.
fn parts(told: &[u8], at: &mut usize, open: u8) -> u64 {
    let (mut all, mut part) = (mixed(open.into()), 0);
    while let Some(letter) = told.get(*at).copied() {
        *at += 1;
        match letter {
            b' ' | b'\n' => {}
            b'{' | b'[' | b'(' => part = mixed(part ^ parts(told, at, letter)),
            b'}' | b']' | b')' => break,
            b',' if open == b'{' => (all, part) = (all.wrapping_add(mixed(part)), 0),
            b',' => (all, part) = (mixed(all ^ mixed(part)), 0),
            _ => part = (part ^ u64::from(letter)).wrapping_mul(0x0100_0000_01b3).rotate_left(5),
        }
    }
    mixed(all ^ mixed(part))
}

/// Each bit of it hangs on all bits (the finish of splitmix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[test]
fn maps_are_the_same_whatever_the_order_and_lists_are_not() {
    use std::collections::HashMap;
    let map = |numbers: &[u32]| {
        let numbers = numbers.iter().map(|number| ((*number, 'x'), [1, 2]));
        fingerprint(&numbers.collect::<HashMap<_, _>>())
    };
    assert_eq!(map(&[1, 2, 3, 4]), map(&[4, 2, 3, 1]));
    assert_ne!(map(&[1, 2, 3, 4]), map(&[1, 2, 3]));
    assert_ne!(fingerprint(&[1, 2]), fingerprint(&[2, 1]));
    assert_ne!(fingerprint(&((1, 2), 3)), fingerprint(&(1, (2, 3))));
    assert_ne!(fingerprint(&[Some(1), None]), fingerprint(&[Some(10), None]));
}
